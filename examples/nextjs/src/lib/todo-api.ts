import type { components, operations } from './todo-schema';
import { createTokenSource, SessionEnded, TokenUnavailable } from './token';

// The types of the API, made from its OpenAPI document: `npm run types`.
type Schemas = components['schemas'];
type ListQuery = NonNullable<operations['list_tasks']['parameters']['query']>;

export type Task = Schemas['Task'];
export type Priority = Schemas['Priority'];
export type Summary = Schemas['Summary'];
export type Sort = NonNullable<ListQuery['sort']>;
export type Filters = Omit<ListQuery, 'limit' | 'cursor' | 'sort'>;

/** What the page sets of a task. */
export type TaskChanges = Pick<Schemas['TaskPatch'], 'title' | 'description' | 'due' | 'priority' | 'list' | 'tags'>;
export type NewTask = TaskChanges & Pick<Schemas['NewTask'], 'title'>;

/** Where a task is moved to in the manual order: next to a task that the user sees. */
export type Place = { before: string } | { after: string };

/** The API's codes, and what else can go wrong: a proxy in between answers with its status. */
type Code = Schemas['Problem']['code'] | 'no_token' | 'no_answer' | 'unreachable' | `status_${number}`;

/** One page of the list, and where the next one is. */
export type Page = { tasks: Task[]; next: URL | null };

/** What went wrong, in words for the user. `fields` names what to correct. */
export class Problem extends Error {
  constructor(
    message: string,
    readonly code: Code,
    readonly fields: Record<string, string> = {},
  ) {
    super(message);
  }
}

const PAGE_SIZE = 20;
const ANSWER_WITHIN_MS = 20_000;
const LONGEST_WAIT_S = 15;
const MOST_WAITS = 2;
/** A deletion waits 6 s for an undo, and the page may be left then. */
const LEAVING_WITHIN_MS = 30_000;

type Options = {
  baseUrl: string;
  userId: string;
  /** The service is busy: the page waits this many seconds (null: no longer). */
  onWait: (seconds: number | null) => void;
  onSessionEnded: () => void;
};

export type TodoApi = ReturnType<typeof createTodoApi>;

export function createTodoApi({ baseUrl, userId, onWait, onSessionEnded }: Options) {
  const tokens = createTokenSource(userId);
  const base = new URL(`${baseUrl}/`, window.location.href);
  let waiting = 0;

  async function wait(seconds: number, signal?: AbortSignal): Promise<void> {
    waiting += 1;
    onWait(seconds);
    try {
      await pause(seconds * 1000, signal);
    } finally {
      waiting -= 1;
      if (waiting === 0) onWait(null);
    }
  }

  /**
   * Sends a request with the token. A refused token is replaced and a busy service waited for, both a bounded number of
   * times. `repeatable`: doing it twice is doing it once, so it may be sent again even if it is not known to have failed.
   * `patient`: a busy service is waited for.
   */
  async function send(method: string, url: URL, options: SendOptions = {}): Promise<Response> {
    const { body, signal, repeatable = true, patient = true } = options;
    let renewed = false;
    let waits = 0;
    for (;;) {
      const token = await getToken();
      const response = await fetchOrProblem(base, url, {
        method,
        signal,
        body: body === undefined ? undefined : JSON.stringify(body),
        headers: {
          Authorization: `Bearer ${token}`,
          ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        },
      });
      if (response.ok) return response;

      const problem = await readProblem(response);
      if (response.status === 401) {
        if (problem.code === 'token_revoked') return sessionEnded();
        const replaceable = problem.code === 'token_expired' || problem.code === 'token_invalid';
        if (renewed || !replaceable) throw problem;
        renewed = true;
        tokens.forget(token);
        continue;
      }
      const certainlyNotDone = problem.code === 'unavailable' || problem.code === 'rate_limited';
      if ((response.status === 503 || response.status === 429) && (repeatable || certainlyNotDone) && patient && waits < MOST_WAITS) {
        const seconds = Number.parseInt(response.headers.get('Retry-After') ?? '2', 10) || 2;
        if (seconds <= LONGEST_WAIT_S) {
          waits += 1;
          await wait(Math.max(seconds, 1), signal);
          continue;
        }
        throw new Problem(`${problem.message} Please try again in ${seconds} seconds.`, problem.code);
      }
      throw problem;
    }
  }

  async function getToken(): Promise<string> {
    try {
      return await tokens.get();
    } catch (error) {
      if (error instanceof SessionEnded) return sessionEnded();
      if (error instanceof TokenUnavailable) throw new Problem(error.message, 'no_token');
      throw error;
    }
  }

  /** The page is being left: whoever waits for an answer waits until then. */
  function sessionEnded(): Promise<never> {
    onSessionEnded();
    return new Promise(() => {});
  }

  const task = (id: string, rest = '') => new URL(`tasks/${encodeURIComponent(id)}${rest}`, base);

  function tasks(path: string, query: ListQuery): URL {
    const url = new URL(path, base);
    for (const [name, value] of Object.entries(query)) {
      for (const one of [value ?? []].flat()) url.searchParams.append(name, String(one));
    }
    return url;
  }

  async function page(url: URL, signal?: AbortSignal): Promise<Page> {
    const response = await send('GET', url, { signal });
    return { tasks: (await response.json()) as Task[], next: nextPage(response.headers.get('Link'), url) };
  }

  return {
    list(filters: Filters, sort: Sort, signal?: AbortSignal): Promise<Page> {
      return page(tasks('tasks', { ...filters, sort, limit: PAGE_SIZE }), signal);
    },
    more: page,
    async summary(signal?: AbortSignal): Promise<Summary> {
      const response = await send('GET', new URL('tasks/summary', base), { signal, patient: false });
      return (await response.json()) as Summary;
    },
    async count(filters: Filters, signal?: AbortSignal): Promise<number> {
      const response = await send('GET', tasks('tasks/count', filters), { signal, patient: false });
      return ((await response.json()) as Schemas['Count']).count;
    },
    async add(fields: NewTask): Promise<Task> {
      const body: Schemas['NewTask'] = fields;
      const response = await send('POST', new URL('tasks', base), { body, repeatable: false });
      return (await response.json()) as Task;
    },
    async edit(id: string, changes: TaskChanges): Promise<Task> {
      const body: Schemas['TaskPatch'] = changes;
      const response = await send('PATCH', task(id), { body });
      return (await response.json()) as Task;
    },
    async complete(id: string, completed: boolean): Promise<Task> {
      const body: Schemas['Completion'] = { completed };
      const response = await send('PATCH', task(id, '/complete'), { body });
      return (await response.json()) as Task;
    },
    /** Completes every open task that the filters mean, in one step, and returns how many were changed. */
    async completeAll(filters: Filters): Promise<number> {
      const body: Schemas['TaskPatch'] = { completed: true };
      const response = await send('PATCH', tasks('tasks', { ...filters, completed: false }), { body });
      return ((await response.json()) as Schemas['BulkResult']).changed;
    },
    async move(id: string, place: Place): Promise<Task> {
      const body: Schemas['Move'] = place;
      const response = await send('POST', task(id, '/move'), { body });
      return (await response.json()) as Task;
    },
    async remove(id: string): Promise<void> {
      await send('DELETE', task(id)).catch((error: unknown) => {
        // Deleted already, by an earlier try or elsewhere: that is what was asked for.
        if (!(error instanceof Problem && error.code === 'task_not_found')) throw error;
      });
    },
    /** Gets a token that will still be good when the page is left: there is no time for it then. */
    prepareToLeave(): void {
      tokens.renewIfItEndsWithin(LEAVING_WITHIN_MS).catch(() => {});
    },
    /** Deletes while the page is being left. The browser sends the requests after the page is gone; no response is read. */
    removeAndLeave(ids: string[]): void {
      const token = tokens.current();
      if (token === null) return;
      for (const id of ids) {
        const options = { method: 'DELETE', keepalive: true, headers: { Authorization: `Bearer ${token}` } } as const;
        void fetch(task(id), { ...options, cache: 'no-store', credentials: 'omit' }).catch(() => {});
      }
    },
  };
}

type SendOptions = { body?: unknown; signal?: AbortSignal; repeatable?: boolean; patient?: boolean };

async function fetchOrProblem(base: URL, url: URL, init: RequestInit & { signal?: AbortSignal }): Promise<Response> {
  const patience = AbortSignal.timeout(ANSWER_WITHIN_MS);
  const signal = init.signal ? AbortSignal.any([init.signal, patience]) : patience;
  try {
    return await fetch(url, { ...init, signal, cache: 'no-store', credentials: 'omit' });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    if (patience.aborted) throw new Problem('The task service did not answer in time.', 'no_answer');
    throw new Problem(`The task service at ${base.host} cannot be reached. Please try again in a moment.`, 'unreachable');
  }
}

/** Reads an error answer. A proxy in between may answer with anything. */
async function readProblem(response: Response): Promise<Problem> {
  const body = (await response.json().catch(() => null)) as Partial<Schemas['Problem']> | null;
  const detail = typeof body?.detail === 'string' ? body.detail : `The task service answered with status ${response.status}.`;
  const code = typeof body?.code === 'string' ? body.code : (`status_${response.status}` as const);
  const fields = Object.entries(body?.field_errors ?? {}).map(([field, messages]) => [field, [messages].flat().join(' ')]);
  return new Problem(detail, code, Object.fromEntries(fields) as Record<string, string>);
}

/** The target of `rel="next"`, relative to the address asked. Never another place: the token goes there. */
function nextPage(header: string | null, asked: URL): URL | null {
  for (const link of header?.split(/,\s*(?=<)/) ?? []) {
    const [, target, parameters] = /^\s*<([^>]*)>(.*)$/.exec(link) ?? [];
    if (target === undefined || !/;\s*rel="?next"?/i.test(parameters ?? '')) continue;
    const next = new URL(target, asked);
    return next.origin === asked.origin && next.pathname === asked.pathname ? next : null;
  }
  return null;
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener('abort', stop, { once: true });
  });
}
