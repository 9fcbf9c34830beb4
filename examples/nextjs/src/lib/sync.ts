import { clashOf, keepMine, newId, onTopOf, takeOther, withEdits, type Clash, type Edit } from './edits';
import { handOver, takeOver } from './handover';
import { Problem, type Changes, type NewTask, type Place, type Task, type TodoApi } from './todo-api';

/** For how a failed call is told to the user. */
export const messageOf = (error: unknown) => (error instanceof Problem ? error.message : 'Something went wrong on this page.');

/** What a row says besides the task: the first edit that waits, and what it waits for. */
export type Mark = { edit: Edit; clash: Clash | null; current: Task | undefined };

export type Synced = {
  state: 'loading' | 'ready' | 'failed';
  problem: string | null;
  /** All tasks of the user, with the edits that are not confirmed. */
  tasks: Task[];
  marks: Map<string, Mark>;
  connected: boolean;
  /** How many edits wait for the API, or for the user. */
  unsent: number;
};

export const NOTHING: Synced = { state: 'loading', problem: null, tasks: [], marks: new Map(), connected: true, unsent: 0 };

/** An edit that was made: the task as it is shown, and whether the API has confirmed it. */
export type Made = { task: Task; sent: boolean };

export type Sync = ReturnType<typeof createSync>;

const KEY = 'todo.edits';
const AT_ONCE = 4;
const LONGEST_PAUSE_MS = 30_000;
/** A page that nobody looks at for so long needs no stream. */
const HIDDEN_FOR_MS = 60_000;
/** Sorted behind all keys of the API: new tasks come last. */
const LAST = '~';

/** With these the request may have failed for reasons that pass. */
const isPassing = ({ code }: Problem) =>
  ['unreachable', 'no_answer', 'no_token', 'unavailable', 'timeout', 'rate_limited', 'request_timeout'].includes(code) || /^status_5/.test(code);

/**
 * Keeps a copy of the user's tasks in step with the API, in memory only, and sends edits. Each edit is sent with the version that it is
 * based on. Edits of a task are sent one after the other. What cannot be sent is kept until it can be.
 */
export function createSync(api: TodoApi, userId: string) {
  let tasks = new Map<string, Task>();
  let edits = takeOver<Edit[]>(KEY, userId) ?? [];
  const status: Pick<Synced, 'state' | 'problem' | 'connected'> = { state: 'loading', problem: null, connected: true };
  const sending = new Set<string>();
  const callers = new Map<Edit, { resolve: (made: Made) => void; reject: (error: unknown) => void }>();

  // React reads a snapshot, which is a new object after each change.
  const listeners = new Set<() => void>();
  let snapshot = NOTHING;
  function changed() {
    const marks = new Map<string, Mark>();
    for (const edit of edits) {
      const current = tasks.get(edit.id);
      if (!marks.has(edit.id)) marks.set(edit.id, { edit, clash: clashOf(edit, current), current });
    }
    const unsent = edits.filter((edit) => edit.kept || edit.refused || marks.get(edit.id)!.clash).length;
    snapshot = { ...status, tasks: withEdits(tasks, edits), marks, unsent };
    for (const listener of listeners) listener();
  }

  // The stream.

  let since: string | null = null;
  let failures = 0;
  let wake = () => {};
  let running: AbortController | null = null;

  async function follow(signal: AbortSignal) {
    while (!signal.aborted) {
      try {
        since ??= await load(signal);
        await api.events(since, signal, (page) => {
          apply(tasks, page);
          since = page.next;
          failures = 0;
          status.connected = true;
          changed();
          pump(true);
        });
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Problem && error.code === 'sync_token_expired') since = null;
        else failed(error);
      }
      await pause();
    }
  }

  /** Reads all tasks and returns the token to go on from. */
  async function load(signal: AbortSignal): Promise<string> {
    const fresh = new Map<string, Task>();
    let page: Changes | null = null;
    do {
      page = await api.changes(page?.next ?? null, signal);
      apply(fresh, page);
    } while (page.more);
    tasks = fresh;
    Object.assign(status, { state: 'ready', problem: null, connected: true });
    changed();
    pump(true);
    return page.next;
  }

  function failed(error: unknown) {
    failures += 1;
    if (status.state === 'ready') status.connected = false;
    else Object.assign(status, { state: 'failed', problem: messageOf(error) });
    changed();
  }

  /** Longer after each failure, and by chance: not all pages come back to a server at the same moment. */
  function pause(): Promise<void> {
    const ms = Math.min(LONGEST_PAUSE_MS, 1000 * 2 ** failures) * (0.5 + Math.random() / 2);
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, failures === 0 ? ms / 2 : ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  function restart() {
    halt();
    running = new AbortController();
    void follow(running.signal);
  }

  function halt() {
    running?.abort();
    running = null;
    wake();
  }

  // The edits.

  /** Sends what can be sent, at most four edits at a time. `again`: also what has failed before. */
  function pump(again = false) {
    for (const edit of edits) {
      if (sending.size >= AT_ONCE) return;
      const canWait = edit.kept && !again;
      if (canWait || edit.refused || sending.has(edit.id) || blockOf(edit)) continue;
      if (edit.kind !== 'add' && status.state !== 'ready') continue;
      void send(edit);
    }
  }

  /**
   * The edit that has to be sent before this one. Edits of a task depend on each other. Additions and moves do, too: each changes the
   * manual order.
   */
  function blockOf(edit: Edit): Edit | undefined {
    const orders = ({ kind, refused }: Edit) => (kind === 'add' || kind === 'move') && !refused;
    const earlier = edits.slice(0, edits.indexOf(edit));
    return earlier.find((other) => other.id === edit.id || (orders(other) && orders(edit)));
  }

  async function send(edit: Edit): Promise<void> {
    const { id } = edit;
    let again = false;
    sending.add(id);
    try {
      const current = tasks.get(id);
      if (clashOf(edit, current)) keep(edit);
      else if (edit.kind !== 'add' && !current) confirm(edit, null);
      else confirm(edit, await api.make(edit, current?.version ?? 0));
    } catch (error) {
      const { code, current } = error instanceof Problem ? error : {};
      if (code === 'precondition_failed' && current) {
        // A new task exists already if the response to an earlier attempt was lost.
        if (edit.kind === 'add') return confirm(edit, current);
        tasks.set(id, current);
      } else if (code === 'task_not_found') {
        tasks.delete(id);
      } else if (error instanceof Problem && isPassing(error)) {
        keepAll();
        return retryLater();
      } else {
        return refuse(edit, error);
      }
      // The edit is compared with the task as it is now, and sent again or shown to the user.
      again = true;
      changed();
    } finally {
      sending.delete(id);
      queueMicrotask(() => pump(again));
    }
  }

  let retry: ReturnType<typeof setTimeout> | undefined;
  let attempts = 0;
  function retryLater() {
    clearTimeout(retry);
    attempts += 1;
    retry = setTimeout(() => pump(true), Math.min(LONGEST_PAUSE_MS, 1000 * 2 ** attempts) * (0.5 + Math.random() / 2));
  }

  function confirm(edit: Edit, task: Task | null) {
    const known = tasks.get(edit.id);
    if (task === null) tasks.delete(edit.id);
    // The stream may have told us more in the meantime.
    else if (known ? task.version > known.version : edit.kind === 'add') tasks.set(task.id, task);
    edits = edits.filter((other) => other !== edit);
    if (task) for (const later of edits.filter(({ id }) => id === edit.id)) replace(later, onTopOf(edit, task, later));
    attempts = 0;
    changed();
    answer(edit, { task: task ?? edit.base, sent: true });
    queueMicrotask(() => pump(true));
  }

  /** For later, or until the user has decided. */
  function keep(edit: Edit) {
    edit.kept = true;
    changed();
    answer(edit, { task: { ...edit.base, ...edit.change }, sent: false });
  }

  function keepAll() {
    for (const edit of edits) keep(edit);
  }

  /** The API does not accept it: whoever waits is told, and otherwise the row says so. */
  function refuse(edit: Edit, error: unknown) {
    const caller = callers.get(edit);
    if (caller || edit.kind === 'move') edits = edits.filter((other) => other !== edit);
    else edit.refused = messageOf(error);
    callers.delete(edit);
    changed();
    caller?.reject(error);
  }

  function answer(edit: Edit, made: Made) {
    callers.get(edit)?.resolve(made);
    callers.delete(edit);
  }

  function replace(edit: Edit, by: Edit | null) {
    edits = edits.flatMap((other) => (other !== edit ? other : (by ?? [])));
    const caller = callers.get(edit);
    callers.delete(edit);
    if (by && caller) callers.set(by, caller);
  }

  /** Rejects with a `Problem` if the API does not accept the edit. */
  function make(what: Pick<Edit, 'kind' | 'base' | 'change' | 'place' | 'inForm'>): Promise<Made> {
    const edit: Edit = { ...what, id: what.base.id, kept: false, refused: null };
    edits = [...edits, edit];
    return new Promise((resolve, reject) => {
      callers.set(edit, { resolve, reject });
      const block = blockOf(edit);
      if (block && (block.kept || block.refused)) keep(edit);
      else changed();
      pump();
    });
  }

  function add(fields: NewTask): Promise<Made> {
    const now = new Date().toISOString();
    const base: Task = {
      id: newId(),
      user_id: userId,
      title: fields.title,
      description: fields.description ?? null,
      due: fields.due ?? null,
      priority: fields.priority ?? null,
      list: fields.list ?? null,
      tags: fields.tags ?? [],
      completed: false,
      completed_at: null,
      position: LAST,
      metadata: {},
      created_at: now,
      updated_at: now,
      version: 0,
    };
    return make({ kind: 'add', base, change: {}, inForm: true });
  }

  /** The user has decided about the first edit of a task. */
  function resolve(id: string, decide: (mark: Mark) => Edit | null) {
    const mark = snapshot.marks.get(id);
    if (!mark) return;
    replace(mark.edit, decide(mark));
    changed();
    pump(true);
  }

  // The page.

  let hidden: ReturnType<typeof setTimeout> | undefined;
  function onVisibility() {
    clearTimeout(hidden);
    if (document.visibilityState === 'hidden') hidden = setTimeout(halt, HIDDEN_FOR_MS);
    else if (!running) restart();
  }
  function onNetwork() {
    failures = 0;
    restart();
    if (navigator.onLine) pump(true);
  }
  /** Edits are for this page and the next one in this tab. */
  function onUnload(event: BeforeUnloadEvent) {
    if (snapshot.unsent > 0) event.preventDefault();
  }

  return {
    subscribe(listener: () => void) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    snapshot: () => snapshot,
    start() {
      changed();
      restart();
      document.addEventListener('visibilitychange', onVisibility);
      for (const event of ['online', 'offline']) window.addEventListener(event, onNetwork);
      window.addEventListener('beforeunload', onUnload);
    },
    stop() {
      halt();
      clearTimeout(hidden);
      clearTimeout(retry);
      document.removeEventListener('visibilitychange', onVisibility);
      for (const event of ['online', 'offline']) window.removeEventListener(event, onNetwork);
      window.removeEventListener('beforeunload', onUnload);
    },
    /** Reads all tasks again after a failure. */
    reload() {
      status.state = 'loading';
      changed();
      wake();
    },
    /** The page is being left. What is not confirmed is sent once more, and by the next page of this user if that fails. */
    leave(removed: Task[]) {
      for (const base of removed) edits.push({ id: base.id, kind: 'remove', base, change: {}, kept: true, refused: null });
      if (edits.length > 0) handOver(KEY, userId, edits);
      for (const edit of edits) {
        const current = tasks.get(edit.id);
        const canBeSent = edit.kind === 'add' || (current !== undefined && clashOf(edit, current) === null);
        if (canBeSent && !edit.refused && !blockOf(edit)) api.makeAndLeave(edit, current?.version ?? 0);
      }
    },
    /** At sign-out: nothing stays behind for the next user of this browser. */
    discardAll() {
      edits = [];
      changed();
    },
    add,
    change: (base: Task, change: Partial<Task>, inForm = false) => make({ kind: 'change', base, change, inForm }),
    move(base: Task, place: Place, position: string) {
      return make({ kind: 'move', base, change: { position }, place });
    },
    remove: (base: Task) => make({ kind: 'remove', base, change: {} }),
    keepMine: (id: string) => resolve(id, ({ edit, current }) => keepMine(edit, current)),
    takeOther: (id: string) => resolve(id, ({ edit, clash }) => (clash ? takeOther(edit, clash) : edit)),
    retry: (id: string) => resolve(id, ({ edit }) => ({ ...edit, refused: null })),
    discard: (id: string) => resolve(id, () => null),
  };
}

/** Applies a page to a copy. A response to an edit may have been faster than the stream. */
function apply(copy: Map<string, Task>, { changes }: Changes): void {
  for (const change of changes) {
    if ('deleted' in change) copy.delete(change.deleted);
    else if (change.task.version > (copy.get(change.task.id)?.version ?? 0)) copy.set(change.task.id, change.task);
  }
}
