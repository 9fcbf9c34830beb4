import type { components, operations } from './todo-schema';
import type { Edit } from './edits';
import { createTokenSource, SessionEnded, TokenUnavailable } from './token';

// The types of the API, made from its OpenAPI document: `npm run types`.
type Schemas = components['schemas'];
type ListQuery = NonNullable<operations['list_tasks']['parameters']['query']>;

export type Task = Schemas['Task'];
export type Priority = Schemas['Priority'];
export type Changes = Schemas['Changes'];
export type Sort = NonNullable<ListQuery['sort']>;
export type Filters = Omit<ListQuery, 'limit' | 'cursor' | 'sort'>;

/** What the page sets of a task. */
export type TaskChanges = Pick<Schemas['TaskPatch'], 'title' | 'description' | 'due' | 'priority' | 'list' | 'tags'>;
export type NewTask = TaskChanges & Pick<Schemas['NewTask'], 'title'>;

/** Where a task is moved to in the manual order: next to a task that the user sees. */
export type Place = { before: string } | { after: string };

/** The API's codes, and what else can go wrong: a proxy in between answers with its status. */
type Code = Schemas['Problem']['code'] | 'no_token' | 'no_answer' | 'unreachable' | `status_${number}`;

/** What went wrong, in words for the user. `fields` names what to correct, `current` is the task if it has changed meanwhile. */
export class Problem extends Error {
  constructor(
    message: string,
    readonly code: Code,
    readonly fields: Record<string, string> = {},
    readonly current?: Task,
  ) {
    super(message);
  }
}

const PAGE_SIZE = 200;
const ANSWER_WITHIN_MS = 20_000;
const LONGEST_WAIT_S = 15;
const MOST_WAITS = 2;
/** A deletion waits 6 s for an undo, and the page may be left then. */
const LEAVING_WITHIN_MS = 30_000;
/** The token of a stream is good for at least so long, so that the stream does not end at once. */
const STREAM_AT_LEAST_MS = 5_000;
/** The server sends something every 15 seconds. After so long without anything, the connection is lost. */
const SILENT_FOR_MS = 30_000;

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
   * times. All requests of this page may be sent again: doing it twice is doing it once. `patient`: a busy service is waited
   * for. `stream`: the response may take for ever.
   */
  async function send(method: string, url: URL, options: SendOptions = {}): Promise<Response> {
    const { body, signal, headers = {}, patient = true, stream = false } = options;
    let renewed = false;
    let waits = 0;
    for (;;) {
      const token = await getToken();
      const init = { ...requestOf(method, token, body, headers), signal };
      const response = await fetchOrProblem(base, url, init, stream ? null : ANSWER_WITHIN_MS);
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
      if ((response.status === 503 || response.status === 429) && patient && waits < MOST_WAITS) {
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

  /** A token, by default one that may end at any time: it is replaced then. */
  async function getToken(endsNotWithinMs?: number): Promise<string> {
    try {
      if (endsNotWithinMs !== undefined) await tokens.renewIfItEndsWithin(endsNotWithinMs);
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

  /** The request that makes an edit. It is made only if the task still has this version. */
  function requestFor(edit: Edit, version: number) {
    const match = { 'If-Match': `"${version}"` };
    switch (edit.kind) {
      case 'add':
        return { method: 'PUT', url: task(edit.id), headers: { 'If-None-Match': '*' }, body: newTask(edit) };
      case 'change':
        return { method: 'PATCH', url: task(edit.id), headers: match, body: edit.change as Schemas['TaskPatch'] };
      case 'move':
        return { method: 'POST', url: task(edit.id, '/move'), headers: match, body: edit.place as Schemas['Move'] };
      case 'remove':
        return { method: 'DELETE', url: task(edit.id), headers: match, body: undefined };
    }
  }

  return {
    /** What has changed since a token, or all tasks. */
    async changes(since: string | null, signal: AbortSignal): Promise<Changes> {
      const url = new URL('tasks/changes', base);
      url.searchParams.set('limit', String(PAGE_SIZE));
      if (since !== null) url.searchParams.set('since', since);
      return (await (await send('GET', url, { signal })).json()) as Changes;
    },
    /** Calls `onChanges` with what changes after a token, as it happens. Returns when the server ends the stream. */
    async events(since: string, signal: AbortSignal, onChanges: (page: Changes) => void): Promise<void> {
      await getToken(STREAM_AT_LEAST_MS);
      const silence = new AbortController();
      let timer = setTimeout(() => silence.abort(), SILENT_FOR_MS);
      try {
        const response = await send('GET', new URL('tasks/events', base), {
          signal: AbortSignal.any([signal, silence.signal]),
          headers: { 'Last-Event-ID': since },
          patient: false,
          stream: true,
        });
        const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
        let text = '';
        for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
          clearTimeout(timer);
          timer = setTimeout(() => silence.abort(), SILENT_FOR_MS);
          const events = (text + piece.value).split('\n\n');
          text = events.pop()!;
          for (const event of events) {
            const data = /^data: (.*)$/m.exec(event)?.[1];
            if (data !== undefined) onChanges(JSON.parse(data) as Changes);
          }
        }
      } finally {
        clearTimeout(timer);
      }
    },
    /** Makes an edit and returns the task, or null if it is deleted. */
    async make(edit: Edit, version: number): Promise<Task | null> {
      const { method, url, ...rest } = requestFor(edit, version);
      const response = await send(method, url, rest);
      return response.status === 204 ? null : ((await response.json()) as Task);
    },
    /** Completes every open task that the filters mean, in one step, and returns how many were changed. */
    async completeAll(filters: Filters): Promise<number> {
      const url = new URL('tasks', base);
      for (const [name, value] of Object.entries({ ...filters, completed: false })) {
        for (const one of [value ?? []].flat()) url.searchParams.append(name, String(one));
      }
      const body: Schemas['BulkPatch'] = { completed: true };
      const response = await send('PATCH', url, { body });
      return ((await response.json()) as Schemas['BulkResult']).changed;
    },
    /** Gets a token that will still be good when the page is left: there is no time for it then. */
    prepareToLeave(): void {
      tokens.renewIfItEndsWithin(LEAVING_WITHIN_MS).catch(() => {});
    },
    /** Makes an edit while the page is being left. The browser sends the request after the page is gone; no response is read. */
    makeAndLeave(edit: Edit, version: number): void {
      const token = tokens.current();
      if (token === null) return;
      const { method, url, body, headers } = requestFor(edit, version);
      void fetch(url, { ...requestOf(method, token, body, headers), keepalive: true }).catch(() => {});
    },
  };
}

function newTask({ base }: Edit): Schemas['TaskReplacement'] {
  const { title, description, due, priority, list, tags, completed } = base;
  return { title, description, due, priority, list, tags, completed };
}

const requestOf = (method: string, token: string, body: unknown, headers: Record<string, string>): RequestInit => ({
  method,
  body: body === undefined ? undefined : JSON.stringify(body),
  headers: { ...headers, Authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
  cache: 'no-store',
  credentials: 'omit',
});

type SendOptions = {
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  patient?: boolean;
  stream?: boolean;
};

async function fetchOrProblem(base: URL, url: URL, init: RequestInit & { signal?: AbortSignal }, withinMs: number | null): Promise<Response> {
  const patience = withinMs === null ? new AbortController().signal : AbortSignal.timeout(withinMs);
  const signal = init.signal ? AbortSignal.any([init.signal, patience]) : patience;
  try {
    return await fetch(url, { ...init, signal });
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
  return new Problem(detail, code, Object.fromEntries(fields) as Record<string, string>, body?.current);
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
