// Replication of an RxDB collection with the tasks of one user, for browsers and Node.js. Copy this file; docs/sync.md, "With RxDB",
// explains its use.

import { replicateRxCollection } from "rxdb/plugins/replication";
import { Subject } from "rxjs";

const text = { type: "string" };
const textOrNull = { type: ["string", "null"] };

/** The schema of the collection. `version` is 0 until the server has the task. */
export const taskSchema = {
  title: "task",
  version: 0,
  type: "object",
  primaryKey: "id",
  properties: {
    id: { type: "string", maxLength: 36 },
    user_id: text,
    title: text,
    description: textOrNull,
    completed: { type: "boolean" },
    completed_at: textOrNull,
    due: textOrNull,
    priority: textOrNull,
    list: textOrNull,
    tags: { type: "array", items: text },
    position: text,
    metadata: { type: "object" },
    created_at: text,
    updated_at: text,
    version: { type: "integer" },
  },
  required: ["id", "title", "completed", "version"],
};

/** The fields that a client may change. The server sets the others. */
const WRITABLE = ["title", "description", "completed", "due", "priority", "list", "tags", "position", "metadata"];

/** A task for `collection.insert()`. Its id is a UUID of version 7. */
export function newTask(fields) {
  const now = new Date();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  new DataView(bytes.buffer).setBigUint64(0, (BigInt(now.getTime()) << 16n) | BigInt(0x7000 | ((bytes[6] & 15) << 8) | bytes[7]));
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return {
    id: hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5"),
    user_id: "",
    description: null,
    completed: false,
    completed_at: null,
    due: null,
    priority: null,
    list: null,
    tags: [],
    position: "",
    metadata: {},
    created_at: now.toISOString(),
    updated_at: now.toISOString(),
    version: 0,
    ...fields,
  };
}

/** Whether two values of JSON are equal. */
function equal(a, b) {
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return a === b;
  const keys = Object.keys(a);
  return (
    Array.isArray(a) === Array.isArray(b) &&
    keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && equal(a[key], b[key]))
  );
}

/** What is sent of a task. The server chooses the position of a new task. */
const content = (task) =>
  Object.fromEntries(WRITABLE.filter((name) => name !== "position" || task[name]).map((name) => [name, task[name]]));

/** Whether a task of the server has this content. */
const has = (task, content) => Object.entries(content).every(([name, value]) => equal(task[name], value));

/** Marks a task of the server that contains all changes of this document. */
const CONTAINS = Symbol("contains");

/**
 * The conflict handler of the collection. A field that was changed here gets the value from here, also if it was changed elsewhere; the
 * others get the values of the server. A deletion elsewhere wins over a change here, a change elsewhere over a deletion here.
 */
export const conflictHandler = {
  isEqual: (a, b) =>
    a._deleted || b._deleted ? !!a._deleted === !!b._deleted : a.version === b.version && has(a, content(b)) && has(b, content(a)),
  resolve({ newDocumentState: mine, assumedMasterState, realMasterState: theirs }) {
    if (mine._deleted || theirs._deleted) return theirs;
    const base = theirs[CONTAINS] ?? assumedMasterState;
    const changed = Object.entries(content(mine)).filter(([name, value]) => !base || !equal(base[name], value));
    return { ...theirs, ...Object.fromEntries(changed) };
  },
};

/** A task of the server as a document; fields that the schema does not know are left out. */
const documentOf = (task) => Object.fromEntries(Object.keys(taskSchema.properties).map((name) => [name, task[name]]));

const tombstone = (id) => ({ id, _deleted: true });

/** How many changes are sent at the same time. */
const PARALLEL = 4;
/** The time limit of a request, and of the silence of a stream, in which the server sends something every 15 s. */
const PATIENCE = 30_000;

/**
 * Replicates a collection with the tasks of one user until it is cancelled, and returns RxDB's state of it.
 *
 * - `url`: the address of the API, such as `https://example.com/api`.
 * - `getToken(rejected)` returns a token of the user, or a promise of one. `rejected` is the token that the server did not accept, if
 *   there was one: fetch a new one then.
 * - `onRejected(task, problem)` is told of a change that the server will never accept, such as a title that is too long. The change stays
 *   in the collection, and is not sent again before the task is edited.
 * - All other options are those of `replicateRxCollection`.
 */
export function replicateTasks({ collection, url, getToken, onRejected = () => {}, fetch = globalThis.fetch, ...options }) {
  const stream$ = new Subject();
  const ended = new AbortController();
  /** The newest version of each task that was received. */
  const versions = new Map();
  let isFollowing = false;

  const replication = replicateRxCollection({
    replicationIdentifier: `todo ${url}`,
    ...options,
    collection,
    pull: { batchSize: 100, ...options.pull, handler: pull, stream$ },
    push: { batchSize: 100, ...options.push, handler: push },
  });
  replication.canceled$.subscribe((isCanceled) => isCanceled && ended.abort());
  return replication;

  /** Sends a request with a token, and once more with a new token if that one is not accepted. */
  async function call(path, { headers, signal = AbortSignal.timeout(PATIENCE), ...init } = {}) {
    for (let rejected; ; ) {
      const token = await getToken(rejected);
      const response = await fetch(url + path, {
        ...init,
        headers: { authorization: `Bearer ${token}`, ...headers },
        signal: AbortSignal.any([ended.signal, signal]),
        cache: "no-store",
      });
      if (response.status !== 401 || rejected) return response;
      rejected = token;
    }
  }

  /** The error of an unexpected response. RxDB reports it in `error$`, and calls the handler again after `retryTime`. */
  async function failure(response) {
    return new Error(`${response.status} ${await response.text()}`);
  }

  /**
   * Waits until RxDB has recorded the result of all changes that are being sent. Until then it ignores what it receives of these tasks,
   * although it may be newer than the result.
   */
  async function settled() {
    await replication.internalReplicationState?.streamQueue.up;
  }

  /** Remembers the version of a task. Returns whether it is as new as what was received before. */
  function isCurrent({ id, version }) {
    if (version < versions.get(id)) return false;
    if (version) versions.set(id, version);
    return true;
  }

  /** The changes of a page, without tasks that are older than the result of a change that was sent meanwhile. */
  async function documentsOf(page) {
    await settled();
    return page.changes
      .map(({ task, deleted }) => (task ? documentOf(task) : tombstone(deleted)))
      .filter(isCurrent);
  }

  /** Reads all changes after a token, or at least `count`. Returns `undefined` if the token has expired. */
  async function changes(since, count) {
    for (const documents = []; ; ) {
      const query = new URLSearchParams({ limit: Math.min(count, 200), ...(since && { since }) });
      const response = await call(`/tasks/changes?${query}`);
      if (response.status === 410) return undefined;
      if (!response.ok) throw await failure(response);
      const page = await response.json();
      documents.push(...(await documentsOf(page)));
      since = page.next;
      if (!page.more || documents.length >= count) return { documents, token: since, more: page.more };
    }
  }

  /** Reads all tasks. What the collection has besides was deleted; RxDB ignores that for tasks that were not sent yet. */
  async function everything() {
    await settled();
    const known = await collection.find().exec();
    versions.clear();
    const page = await changes(undefined, Infinity);
    if (!page) throw new Error("the token has expired while all tasks were read");
    // Not what was sent meanwhile.
    const deleted = known.filter(({ id }) => !versions.has(id)).map(({ id }) => tombstone(id));
    return { ...page, documents: [...deleted, ...page.documents] };
  }

  async function pull(checkpoint, batchSize) {
    // Without a token the server does not say what was deleted. RxDB keeps none before it has received a document.
    const hasToken = checkpoint?.token || !(await collection.findOne().exec());
    const page = (hasToken && (await changes(checkpoint?.token, batchSize))) || (await everything());
    if (!page.more && !isFollowing && (options.live ?? true)) follow(page.token);
    return { documents: page.documents, checkpoint: { token: page.token } };
  }

  /** Reads the stream of changes after a token until it ends. Then everything is compared again, which opens the next stream. */
  async function follow(token) {
    isFollowing = true;
    let pause = 3000;
    const connection = new AbortController();
    let timer;
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(() => connection.abort(new Error("the stream is silent")), PATIENCE);
    };
    try {
      wait();
      const response = await call("/tasks/events", { headers: { "last-event-id": token }, signal: connection.signal });
      if (response.status === 410) pause = 0;
      if (!response.ok) throw await failure(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let piece; !(piece = await reader.read()).done; ) {
        wait();
        const blocks = (text + piece.value).split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const fields = new Map(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
          if (fields.has("retry")) pause = Number(fields.get("retry"));
          if (!fields.has("data")) continue;
          const page = JSON.parse(fields.get("data"));
          const documents = await documentsOf(page);
          if (documents.length > 0) stream$.next({ documents, checkpoint: { token: page.next } });
        }
      }
    } catch (error) {
      if (!ended.signal.aborted) replication.subjects.error.next(error);
    }
    clearTimeout(timer);
    connection.abort();
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, pause);
      ended.signal.addEventListener("abort", () => resolve(clearTimeout(timer)), { once: true });
    });
    isFollowing = false;
    stream$.next("RESYNC");
  }

  /** Sends changes. Returns the tasks that are not what RxDB assumes them to be then. */
  async function push(rows) {
    const conflicts = [];
    const open = [...rows];
    const worker = async () => {
      for (let row; (row = open.shift()); ) {
        const conflict = await send(row.newDocumentState, row.assumedMasterState);
        if (conflict) conflicts.push(conflict);
      }
    };
    const results = await Promise.allSettled(Array.from({ length: PARALLEL }, worker));
    const failed = results.find(({ status }) => status === "rejected");
    if (failed) throw failed.reason;
    conflicts.forEach(isCurrent);
    return conflicts;
  }

  /**
   * Sends one change, on the condition that the server still has the task that was changed. Returns the task of the server if RxDB has to
   * be told of it. It need not be told of a new version, which comes with the changes, too.
   */
  async function send(mine, base) {
    // So RxDB confirms that a conflict was resolved as the server has it.
    if (base && conflictHandler.isEqual(mine, base)) return undefined;
    const path = `/tasks/${mine.id}`;
    const remove = (version) => call(path, { method: "DELETE", headers: { "if-match": `"${version}"` } });
    const put = (condition) =>
      call(path, {
        method: "PUT",
        headers: { "content-type": "application/json", ...condition },
        body: JSON.stringify(content(mine)),
      });
    const gone = { ...mine, _deleted: true };
    let version = base && !base._deleted ? base.version : 0;
    for (;;) {
      const response = mine._deleted
        ? await remove(version || 1)
        : await put(version ? { "if-match": `"${version}"` } : { "if-none-match": "*" });
      if (response.status === 204) {
        versions.set(mine.id, (version || 1) + 1);
        return undefined;
      }
      if (response.ok) {
        const task = documentOf(await response.json());
        if (response.status === 201 && task.version > 1 && !base?._deleted) {
          // An earlier attempt had created the task, its response was lost, and the task was deleted elsewhere since.
          await remove(task.version);
          return gone;
        }
        isCurrent(task);
        // Nothing has changed for the server, which removes white space, for example. So this does not come with the changes.
        const isUnchanged = task.version === version && !conflictHandler.isEqual(task, mine);
        return isUnchanged ? { ...task, [CONTAINS]: mine } : undefined;
      }
      const problem = await response.clone().json().catch(() => ({}));
      switch (problem.code) {
        case "task_not_found":
          return mine._deleted ? undefined : gone;
        case "precondition_failed": {
          const current = documentOf(problem.current);
          // The response to an earlier attempt was lost, or somebody else has changed it in the same way.
          if (!mine._deleted && has(current, content(mine))) return { ...current, [CONTAINS]: mine };
          // Nobody else has changed it: RxDB knows what was sent from here last, and not yet which version it became.
          if (!base || base._deleted || current.version === version || !has(current, content(base))) return current;
          version = current.version;
          break;
        }
        case "quota_exceeded":
        case "payload_too_large":
        case "validation_failed":
          onRejected(mine, problem);
          return undefined;
        default:
          throw await failure(response);
      }
    }
  }
}
