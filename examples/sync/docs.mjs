// Runs the code of docs/sync.md against a server that is stopped, killed and started again. scripts/check-sync calls it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const code = await readFile(new URL("../../docs/sync.js", import.meta.url), "utf8");
const { follow } = await import(`data:text/javascript,${encodeURIComponent(code)}`);

const folder = await mkdtemp(join(tmpdir(), "todo-follow-"));
const secret = randomBytes(32).toString("hex");
const probe = createServer().listen(0, "127.0.0.1");
await once(probe, "listening");
const { port } = probe.address();
probe.close();
await once(probe, "close");

const url = `http://127.0.0.1:${port}/api/v1`;
const encode = (json) => Buffer.from(JSON.stringify(json)).toString("base64url");
const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ sub: "ann", exp: Math.floor(Date.now() / 1000) + 900 })}`;
const token = `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;

let server;
async function start() {
  server = spawn(process.env.TODO_SERVER, {
    env: { DATABASE_URL: `sqlite://${join(folder, "todo.db")}`, BETTER_AUTH_SECRET: secret, HOST: "127.0.0.1", PORT: `${port}` },
    cwd: folder,
    stdio: "ignore",
  });
  await until("the server is ready", () => fetch(`http://127.0.0.1:${port}/health`).then((response) => response.ok, () => false));
}
async function end(signal) {
  server.kill(signal);
  await once(server, "exit");
}
async function call(method, path, body) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const response = await fetch(`${url}${path}`, { method, headers, body: body && JSON.stringify(body) });
  assert(response.ok, await response.clone().text());
  return response.status === 204 ? undefined : response.json();
}
async function until(what, isSo) {
  for (const begun = Date.now(); !(await isSo()); await sleep(20)) {
    assert(Date.now() - begun < 20_000, `${what}: not within 20 s`);
  }
}
process.on("exit", () => server?.kill("SIGKILL"));

await start();
const tasks = new Map();
const stop = new AbortController();
let connections = 0;
const getToken = () => (connections++, token);
// So short that each connection is taken for lost, before the server sends its next comment.
const following = follow(url, getToken, tasks, { signal: stop.signal, silence: 1500 });
const has = (...titles) =>
  until(`the copy has ${titles}`, () => `${[...tasks.values()].map((task) => task.title).sort()}` === `${titles}`);
const warn = console.warn;
console.warn = () => {};

const milk = await call("POST", "/tasks", { title: "Milk" });
await has("Milk");
// Characters that end a line elsewhere.
const bread = "Bread\u0085and\u2028butter";
await call("POST", "/tasks", { title: bread });
await has(bread, "Milk");
await until("a silent connection is opened again", () => connections >= 2);

await end("SIGTERM");
await start();
await call("DELETE", `/tasks/${milk.id}`);
await until("the deletion has arrived", () => !tasks.has(milk.id));
await end("SIGKILL");
await start();
await call("POST", "/tasks", { title: "After" });
await until("what came after a kill has arrived", () => [...tasks.values()].some((task) => task.title === "After"));
// It begins again when its token cannot be continued.
await call("DELETE", "/tasks?all=true");
await has();
await call("POST", "/tasks", { title: "New" });
await has("New");

stop.abort();
// If it is pausing, it ends after the pause of about three seconds.
await Promise.race([following, sleep(10_000, undefined, { ref: false }).then(() => assert.fail("an abort does not end it"))]);
console.warn = warn;
await assert.rejects(follow(`${url}/another`, getToken, new Map()), /403/, "the address of another user is reported, not retried");
await end("SIGTERM");
await rm(folder, { recursive: true });
console.log(`docs/sync.js: a copy in step, over ${connections} connections`);
