// Five clients with RxDB, three of one user and two of another, change the same tasks: offline for a while, restarted, with responses that
// are lost and requests that arrive twice, against two servers on one PostgreSQL database, one of which gets SIGKILL now and then. At the
// end of a round all clients are online. Then all copies of a user and both servers must have the same tasks, byte for byte, and every
// write that a server has acknowledged must be there or have been replaced by a later one. scripts/check-sync runs it; docs/drills.md
// explains the result.

import { spawn } from "node:child_process";
import { createHmac, randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import { createWriteStream, mkdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { createRxDatabase } from "rxdb/plugins/core";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";
import { conflictHandler, newTask, replicateTasks, taskSchema } from "./todo-replication.mjs";

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "2" },
    seed: { type: "string", default: String(randomInt(1e9)) },
    steps: { type: "string", default: "60" },
    // Removes the conditions of changes, to show that the test then fails.
    sabotage: { type: "boolean", default: false },
    // Prints the errors that clients report.
    verbose: { type: "boolean", default: false },
  },
});
const program = process.env.TODO_SERVER;
const out = process.env.SYNC_LOGS ?? ".";
const secret = randomBytes(32).toString("hex");
const environment = {
  ...process.env,
  DATABASE_URL: process.env.TEST_DATABASE_URL,
  BETTER_AUTH_SECRET: secret,
  HOST: "127.0.0.1",
  PORT: "0",
  LOG_FORMAT: "text",
};
/** How long after the end of a round all copies may differ. */
const CONVERGENCE = 30_000;

/** Random numbers from a seed (mulberry32). */
class Random {
  constructor(seed) {
    this.state = seed >>> 0;
  }
  next() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  chance = (probability) => this.next() < probability;
  /** A whole number from `from` to `to`. */
  between = (from, to) => from + Math.floor(this.next() * (to - from + 1));
  of = (list) => list[this.between(0, list.length - 1)];
}

const totals = {
  rounds: 0,
  kills: 0,
  offline: 0,
  restarts: 0,
  "lost responses": 0,
  "repeated requests": 0,
  "expired tokens": 0,
  "expired sync tokens": 0,
  "local changes": 0,
  "acknowledged writes": 0,
  "unknown outcomes": 0,
  unavailable: 0,
  conflicts: 0,
  lost: 0,
  diverged: 0,
  foreign: 0,
};

class Server {
  constructor(name) {
    this.log = createWriteStream(`${out}/${name}.log`);
  }
  async start() {
    this.child = spawn(program, { env: environment, cwd: "/", stdio: ["ignore", "pipe", "pipe"] });
    this.ended = once(this.child, "exit");
    const lines = [this.child.stdout, this.child.stderr].map((input) => createInterface({ input }));
    const address = new Promise((resolve, reject) => {
      for (const line of lines) {
        line.on("line", (text) => {
          this.log.write(`${text}\n`);
          // On a busy machine a request may have to wait for too long; it is sent again.
          if (/ERROR.* code="(unavailable|timeout)"/.test(text)) totals.unavailable++;
          else if (/ERROR|panicked/.test(text)) errors.push(text);
          const found = /listening.*?(127\.0\.0\.1:\d+)/.exec(text);
          if (found) resolve(found[1]);
        });
      }
      this.ended.then(([code, signal]) => reject(new Error(`the server ended: ${code ?? signal}`)));
    });
    // It may have been killed before it listens.
    address.catch(() => {});
    this.url = `http://${await address}`;
  }
  async kill(signal = "SIGKILL") {
    this.url = undefined;
    this.child.kill(signal);
    return await this.ended;
  }
}
const errors = [];

function token(user, seconds) {
  const encode = (json) => Buffer.from(JSON.stringify(json)).toString("base64url");
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ sub: user, exp: Math.floor(Date.now() / 1000) + seconds })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** JSON with sorted members, so that equal tasks are equal texts. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical)}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const members = Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${members}}`;
}

/** The way of a client to the servers. It fails, is interrupted, and notes what the servers have responded. */
class Network {
  isOnline = true;
  interruption = new AbortController();
  /** Whether responses are lost and requests repeated. */
  isBad = true;
  /** The requests that have had no response yet. */
  open = new Set();

  constructor(client) {
    this.client = client;
    this.random = new Random(client.random.between(0, 2 ** 31));
  }

  goOffline() {
    this.isOnline = false;
    this.interruption.abort(new TypeError("the network is interrupted"));
  }

  goOnline() {
    this.isOnline = true;
    this.interruption = new AbortController();
  }

  fetch = async (url, init = {}) => {
    const { random, client } = this;
    await sleep(random.between(0, 8));
    if (!this.isOnline) throw new TypeError("offline");
    const up = servers.filter((server) => server.url);
    if (up.length === 0) throw new TypeError("no server");
    const { pathname, search } = new URL(url);
    const target = random.of(up).url + pathname + search;
    const method = init.method ?? "GET";
    const headers = { ...init.headers };
    if (options.sabotage && method === "PUT") delete headers["if-match"];
    const signal = AbortSignal.any([init.signal, this.interruption.signal]);
    const request = { method, target, begun: Date.now() };
    const send = () => fetch(target, { ...init, headers, signal });
    if (pathname.endsWith("/events")) {
      const response = await send();
      if (response.status === 410) totals["expired sync tokens"]++;
      return response.ok ? interruptible(response, signal) : response;
    }
    let write;
    const note = async () => {
      write = method !== "GET" && { client: client.name, id: pathname.split("/").at(-1), method, headers };
      if (write) {
        client.user.writes.push(write);
        if (init.body) write.content = JSON.parse(init.body);
      }
      const response = await send();
      const text = await response.text();
      if (write) {
        write.status = response.status;
        if (response.ok && text) write.task = JSON.parse(text);
        if (response.status === 412) write.current = JSON.parse(text).current;
      }
      return new Response(text || null, response);
    };
    this.open.add(request);
    let response = await note().finally(() => this.open.delete(request));
    if (response.status === 401) totals["expired tokens"]++;
    if (response.status === 410) totals["expired sync tokens"]++;
    if (this.isBad && write && headers["if-match"] && random.chance(0.03)) {
      totals["repeated requests"]++;
      response = await note();
    }
    if (this.isBad && random.chance(0.06)) {
      totals["lost responses"]++;
      throw new TypeError("the response was lost");
    }
    return response;
  };
}

/** A response whose body fails at once when the network is interrupted; that of `fetch` does not always. */
function interruptible(response, signal) {
  const reader = response.body.getReader();
  const aborted = new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  aborted.catch(() => {});
  const body = new ReadableStream({
    async pull(controller) {
      const { done, value } = await Promise.race([reader.read(), aborted]);
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
  return new Response(body, response);
}

class Client {
  /** The last title that was written here for each task. */
  titles = new Map();
  changes = 0;
  rejected = [];

  constructor(user, name, random) {
    this.user = user;
    this.name = name;
    this.random = random;
    this.network = new Network(this);
  }

  async open() {
    this.database = await createRxDatabase({ name: `${this.user.name}-${this.name}`, storage, multiInstance: false });
    const { tasks } = await this.database.addCollections({ tasks: { schema: taskSchema, conflictHandler } });
    this.tasks = tasks;
    this.replicate();
  }

  replicate() {
    this.replication = replicateTasks({
      collection: this.tasks,
      url: "http://servers/api",
      fetch: this.network.fetch,
      retryTime: 100,
      getToken: (rejected) => token(this.user.name, rejected || !this.random.chance(0.05) ? 3600 : -3600),
      // Small pages, so that there are several.
      pull: { batchSize: this.random.of([3, 100]) },
      push: { batchSize: this.random.of([2, 100]) },
      onConflict: () => totals.conflicts++,
      onRejected: (task, problem) => this.rejected.push(`${task.title.length} characters: ${problem.code}`),
    });
    this.replication.error$.subscribe((error) => {
      if (options.verbose) console.error(this.name, error.parameters?.errors?.[0]?.message ?? error.message);
    });
  }

  /** Ends and begins again with what the storage has. */
  async restart() {
    totals.restarts++;
    if (this.random.chance(0.5)) {
      await this.replication.cancel();
      this.replicate();
    } else {
      await this.database.close();
      await this.open();
    }
  }

  async change() {
    const { random } = this;
    const all = await this.tasks.find().exec();
    const unique = `${this.name} ${++this.changes}`;
    totals["local changes"]++;
    if (all.length < 3 || (all.length < 15 && random.chance(0.2))) {
      const task = newTask({ title: unique, tags: random.chance(0.5) ? ["new", unique] : [], metadata: { by: this.name } });
      this.titles.set(task.id, unique);
      return await this.tasks.insert(task);
    }
    if (random.chance(0.1)) {
      // Several clients make the same change.
      const newest = all.reduce((one, other) => (one.id > other.id ? one : other));
      return await newest.incrementalPatch({ description: `at ${Math.floor(Date.now() / 200)}` });
    }
    const task = random.of(all);
    const kind = random.next();
    if (kind < 0.12) {
      await task.incrementalRemove();
      return this.titles.delete(task.id);
    }
    if (kind < 0.3) return await task.incrementalPatch({ completed: !task.completed });
    if (kind < 0.65) {
      // White space, which the server removes.
      const patched = await task.incrementalPatch({ title: random.chance(0.1) ? ` ${unique} ` : unique });
      if (!patched.deleted) this.titles.set(task.id, unique);
      return;
    }
    return await task.incrementalPatch(
      random.of([
        { description: random.chance(0.3) ? null : unique },
        { due: random.of([null, "2026-12-01", "2026-12-01T17:00", "2026-12-01T17:00[Europe/Berlin]", "2026-12-01T16:00Z"]) },
        { priority: random.of([null, "low", "medium", "high", "urgent"]) },
        { list: random.of([null, "Groceries", "Work"]) },
        { tags: [unique, "tag"] },
        { metadata: { by: this.name, n: this.changes, deep: { list: [1.5, "ü", null] } } },
        { title: ` ${task.title}` },
      ]),
    );
  }

  /** Makes a change that is none for the server. */
  async changeNothing() {
    const task = this.random.of(await this.tasks.find().exec());
    await task?.incrementalPatch({ title: ` ${task.title}`, ...(task.due && { due: task.due.replace(/:00(?=[Z+[]|$)/, "") }) });
  }

  /** Makes a change that the server rejects, and then one that it accepts. Returns what was wrong. */
  async changeTooMuch() {
    const task = await this.tasks.findOne().exec();
    if (!task) return [];
    await task.incrementalPatch({ title: "x".repeat(201) });
    for (let n = 0; n < 100 && this.rejected.length === 0; n++) await sleep(50);
    const wrong = this.rejected.join() === "201 characters: validation_failed" ? [] : [`${this.name}: rejected: ${this.rejected}`];
    await task.incrementalPatch({ title: `${this.name} again` });
    return wrong;
  }

  async run(steps) {
    const { random, network } = this;
    let offline = 0;
    for (let step = 0; step < steps; step++) {
      await sleep(random.between(0, 30));
      if (offline > 0 && --offline === 0) network.goOnline();
      if (offline === 0 && (this.isAway || random.chance(0.06))) {
        totals.offline++;
        network.goOffline();
        offline = this.isAway ? Infinity : random.between(1, 25);
      }
      if (random.chance(0.03)) await this.restart();
      await this.change();
    }
    network.goOnline();
    network.isBad = false;
  }

  /** All tasks as canonical JSON by id. */
  async copy() {
    const all = await this.tasks.find().exec();
    return new Map(all.map((task) => [task.id, canonical(task.toJSON())]));
  }
}

/** All tasks of a user on a server as canonical JSON by id. */
async function listed(server, user) {
  const tasks = new Map();
  for (let path = "/api/tasks?limit=200"; path; ) {
    const response = await fetch(server.url + path, { headers: { authorization: `Bearer ${token(user.name, 3600)}` } });
    if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
    for (const task of await response.json()) tasks.set(task.id, task);
    const next = /<([^>]*)>; rel="next"/.exec(response.headers.get("link") ?? "");
    path = next && `/api/tasks${next[1]}`;
  }
  return tasks;
}

/** What of the writes that the servers have acknowledged is not there, although nothing has replaced it. */
function lostWrites(user, tasks, arePurged) {
  const lost = [];
  const byId = new Map();
  for (const write of user.writes) byId.set(write.id, [...(byId.get(write.id) ?? []), write]);
  for (const [id, writes] of byId) {
    const isKnown = ({ status }) => status !== undefined;
    const matched = ({ headers }) => Number(headers["if-match"]?.slice(1, -1) ?? 0);
    const puts = writes.filter(({ method, status }) => method === "PUT" && status < 300);
    // A task that was deleted, forgotten and created again has version 1 again.
    const creations = writes.filter(({ headers, status }) => headers["if-none-match"] && (status ?? 201) === 201);
    if (arePurged && creations.length > 1) continue;
    // A request that changes nothing leaves the version.
    const changes = puts.filter((write) => write.status === 201 || write.task.version !== matched(write));
    const versions = new Map();
    for (const write of changes) {
      const { version } = write.task;
      if (versions.has(version)) lost.push(`${id}: two writes were acknowledged as version ${version}`);
      versions.set(version, write);
      if (write.status === 200 && version !== matched(write) + 1) {
        lost.push(`${id}: a write on the condition of version ${matched(write)} became version ${version}`);
      }
    }
    for (const write of puts) {
      for (const [name, value] of Object.entries(write.content)) {
        if (name === "due" || canonical(trimmed(write.task[name])) === canonical(trimmed(value))) continue;
        lost.push(`${id}: ${name} was not written as it was sent`);
      }
    }
    const newest = Math.max(0, ...puts.map(({ task }) => task.version));
    const unknown = writes.filter((write) => !isKnown(write));
    const task = tasks.get(id);
    if (!task) {
      const deletions = writes.filter((write) => write.method === "DELETE" && (!isKnown(write) || write.status === 204));
      const isDeleted = deletions.some((write) => matched(write) >= newest);
      if (newest > 0 && !isDeleted) lost.push(`${id}: version ${newest} is gone, and nobody has deleted it`);
      continue;
    }
    if (task.version < newest) lost.push(`${id}: version ${newest} was acknowledged, and ${task.version} is there`);
    for (let version = 1; version <= task.version; version++) {
      const write = versions.get(version);
      const mayBe = unknown.some((write) => matched(write) === version - 1 || write.headers["if-none-match"]);
      const isDeletion = writes.some((write) => write.method === "DELETE" && matched(write) === version - 1);
      if (!write && !mayBe && !isDeletion) lost.push(`${id}: nobody has made version ${version} of ${task.version}`);
    }
    for (const write of puts.filter((write) => write.task.version === task.version)) {
      if (canonical(write.task) !== canonical(task)) lost.push(`${id}: version ${task.version} is not what was acknowledged`);
    }
    for (const write of writes.filter((write) => write.method === "DELETE" && write.status === 204)) {
      const isThereAgain = puts.some(({ status, task }) => status === 201 && task.version > matched(write));
      const mayBeThereAgain = unknown.some(({ headers }) => headers["if-none-match"]);
      if (!isThereAgain && !mayBeThereAgain) lost.push(`${id}: was deleted, and is there`);
    }
  }
  return lost;
}

const trimmed = (value) => (typeof value === "string" ? value.trim() : value);

/** Titles that a user has written, and that were neither sent, nor written over by the same client, nor deleted. */
function lostTitles(user, tasks) {
  const lost = [];
  for (const client of user.clients) {
    for (const [id, title] of client.titles) {
      // A response that was lost is known from a later one.
      const wasSent = user.writes.some((write) => write.id === id && (write.task ?? write.current)?.title === title);
      // It may be there again, if another client has created it again.
      const isDeleted = user.writes.some((write) => write.id === id && write.status === 404 && write.content?.title.trim() === title);
      if (!wasSent && !isDeleted && tasks.has(id)) lost.push(`${id}: "${title}" of ${client.name} was never sent`);
    }
  }
  return lost;
}

/** Waits until all copies of a user are what a server has. Returns the tasks of the server, and what differs at the end. */
async function converged(user, deadline) {
  for (;;) {
    await sleep(50);
    const tasks = await listed(servers[0], user);
    const wanted = new Map([...tasks].map(([id, task]) => [id, canonical(task)]));
    const differences = [];
    for (const client of user.clients) {
      const copy = await client.copy();
      for (const id of new Set([...wanted.keys(), ...copy.keys()])) {
        if (wanted.get(id) === copy.get(id)) continue;
        differences.push(`${client.name} of ${user.name}: ${id}\n    copy:   ${copy.get(id)}\n    server: ${wanted.get(id)}`);
      }
    }
    if (differences.length === 0 || Date.now() > deadline) return { tasks, differences };
  }
}

const storage = getRxStorageMemory();
const servers = [];
process.on("exit", () => servers.forEach(({ child }) => child?.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

async function round(seed) {
  const random = new Random(seed);
  const users = ["ann", "bob"].map((name) => ({ name: `${name}-${seed}-${process.pid}`, writes: [] }));
  const clients = [0, 0, 0, 1, 1].map((of, n) => new Client(users[of], `client-${n}`, new Random(random.between(0, 2 ** 31))));
  for (const user of users) user.clients = clients.filter((client) => client.user === user);
  for (const client of clients) await client.open();

  let isRunning = true;
  const steps = Number(options.steps);
  const kills = (async () => {
    while (isRunning) {
      await sleep(random.between(100, 500));
      if (!isRunning) break;
      const server = random.of(servers);
      totals.kills++;
      await server.kill();
      await sleep(random.between(0, 200));
      await server.start();
    }
  })();
  // In every other round one client is away for long, and its token expires: as those of all, or because deletions are forgotten.
  const arePurged = seed % 4 === 3;
  const expiry = (async () => {
    if (seed % 2 === 0) return;
    await sleep(random.between(100, 400));
    random.of(clients).isAway = true;
    await sleep(random.between(200, 500));
    const command = arePurged ? ["purge", "--older-than", "0"] : ["expire-sync-tokens"];
    const child = spawn(program, command, { env: environment, cwd: "/", stdio: ["ignore", "ignore", "inherit"] });
    const [code] = await once(child, "exit");
    if (code !== 0) throw new Error(`${command} has failed: ${code}`);
  })();
  await Promise.all(clients.map((client) => client.run(steps)));
  isRunning = false;
  await Promise.all([kills, expiry]);

  const failures = [];
  const begun = Date.now();
  for (const user of users) {
    let { tasks, differences } = await converged(user, begun + CONVERGENCE);
    if (differences.length === 0) {
      // The server makes no change of these, so no change brings the copies back to what the server has.
      for (const client of user.clients) await client.changeNothing();
      ({ tasks, differences } = await converged(user, Date.now() + CONVERGENCE));
      failures.push(...(await random.of(user.clients).changeTooMuch()));
      ({ tasks, differences } = await converged(user, Date.now() + CONVERGENCE));
    }
    totals.diverged += differences.length;
    failures.push(...differences);
    if (differences.length > 0) {
      for (const { name, network, replication } of user.clients) {
        const open = [...network.open].map(({ method, target, begun }) => `${method} ${target} for ${Date.now() - begun} ms`);
        const { up, down } = replication.internalReplicationState.events.active;
        failures.push(`${name}: sends: ${up.getValue()}, receives: ${down.getValue()}, open requests: ${open.join(", ") || "none"}`);
      }
    }
    const others = await listed(servers[1], user);
    if (canonical([...others]) !== canonical([...tasks])) failures.push(`${user.name}: the servers differ`);
    const lost = [...lostWrites(user, tasks, arePurged), ...lostTitles(user, tasks)];
    // What the clients have sent of the tasks that differ or were lost.
    const ids = new Set([...differences, ...lost].map((text) => /[0-9a-f]{8}-[0-9a-f-]{27}/.exec(text)?.[0]));
    for (const { client, id, method, headers, content, status, task, current } of user.writes.filter(({ id }) => ids.has(id))) {
      const sent = `${client} ${method} if-match ${headers["if-match"] ?? "none"} ${content?.title ?? ""}`;
      failures.push(`  ${id}: ${sent} -> ${status ?? "no response"} ${task?.version ?? ""}${current ? `${current.version} ${current.title}` : ""}`);
    }
    totals.lost += lost.length;
    failures.push(...lost);
    totals["acknowledged writes"] += user.writes.filter(({ status }) => status < 300).length;
    totals["unknown outcomes"] += user.writes.filter(({ status }) => status === undefined).length;
  }
  for (const user of users) {
    const copies = (await Promise.all(user.clients.map(({ tasks }) => tasks.find().exec()))).flat();
    const foreign = copies.filter((task) => task.user_id !== user.name);
    totals.foreign += foreign.length;
    failures.push(...foreign.map(({ id, user_id }) => `${user.name} sees ${id} of ${user_id}`));
    const other = users.find((other) => other !== user);
    for (const { id } of copies.slice(0, 3)) {
      const headers = { authorization: `Bearer ${token(other.name, 3600)}` };
      const { status } = await fetch(`${servers[0].url}/api/tasks/${id}`, { headers });
      if (status !== 404) failures.push(`${other.name} gets ${status} for ${id} of ${user.name}`);
    }
  }
  for (const client of clients) await client.database.remove();
  totals.rounds++;
  return { failures, milliseconds: Date.now() - begun };
}

mkdirSync(out, { recursive: true });
for (const name of ["server-1", "server-2"]) {
  const server = new Server(name);
  servers.push(server);
  await server.start();
}
const seed = Number(options.seed);
let hasFailed = false;
const begun = Date.now();
const times = [];
for (let n = 0; n < Number(options.rounds); n++) {
  const { failures, milliseconds } = await round(seed + n);
  times.push(milliseconds);
  failures.push(...errors.splice(0));
  if (failures.length > 0) {
    hasFailed = true;
    console.error(`round ${n + 1} has failed; again with --seed ${seed + n} --rounds 1:\n  ${failures.join("\n  ")}`);
  }
}
for (const server of servers) {
  const [code] = await server.kill("SIGTERM");
  if (code !== 0) {
    hasFailed = true;
    console.error(`after SIGTERM a server exited with ${code}`);
  }
}
times.sort((a, b) => a - b);
console.log(`all copies equal after ${times[times.length >> 1]} ms (median), ${times.at(-1)} ms (longest)`);
console.log(`seed ${seed}, ${Math.round((Date.now() - begun) / 1000)} s`);
console.log(Object.entries(totals).map(([name, count]) => `${name}: ${count}`).join("; "));
process.exitCode = hasFailed ? 1 : 0;
