// Starts and stops what the tests need: todo-server, the Next.js app, and a browser. Everything on free ports, with files in a
// temporary folder, and nothing left behind.
//
//   TODO_SERVER            the server's binary (default: target/debug/todo-server of this workspace, or of CARGO_TARGET_DIR)
//   CHROMIUM               the browser's (default: /usr/bin/chromium)
//   E2E_SCREENSHOTS        where screenshots go (default: target/e2e-screenshots)
//   E2E_LEEWAY_VARIABLE    the server's setting for the clock leeway in seconds (default: JWT_LEEWAY_SECONDS)

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { Visitor } from './visitor.mjs';

const app = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const target = resolve(process.env.CARGO_TARGET_DIR || join(app, '../../target'));
const serverBinary = process.env.TODO_SERVER || join(target, 'debug/todo-server');
const browserBinary = process.env.CHROMIUM || '/usr/bin/chromium';
const screenshots = resolve(process.env.E2E_SCREENSHOTS || join(target, 'e2e-screenshots'));
const leewayVariable = process.env.E2E_LEEWAY_VARIABLE || 'JWT_LEEWAY_SECONDS';

const START_WITHIN_MS = 60_000;
const BROWSER_ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const running = new Set();
// The last resort, should a test be abandoned: no process outlives the run.
process.on('exit', () => running.forEach((child) => signal(child, 'SIGKILL')));
for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => process.exit(1));

function signal(child, name) {
  try {
    process.kill(-child.pid, name); // the whole group
  } catch {
    // it has ended already
  }
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** A program that is up once `readyUrl` answers. */
class Program {
  constructor(name, command, args, env, readyUrl) {
    Object.assign(this, { name, command, args, env, readyUrl, log: '' });
  }

  async start() {
    const child = spawn(this.command, this.args, { cwd: app, env: this.env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(child);
    this.child = child;
    this.ended = once(child, 'close').then(
      ([code, by]) => `ended with ${by ?? code}`,
      (error) => `did not start: ${error.message}`,
    );
    this.ended.then(() => running.delete(child));
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (this.log += data));

    let outcome = null;
    this.ended.then((text) => (outcome = text));
    const deadline = Date.now() + START_WITHIN_MS;
    while (!(await answers(this.readyUrl))) {
      if (outcome) throw new Error(`${this.name} ${outcome}\n${this.log}`);
      if (Date.now() > deadline) throw new Error(`${this.name} was not ready in time\n${this.log}`);
      await sleep(100);
    }
  }

  /** `SIGKILL` by default: as if the machine had gone. */
  async stop(name = 'SIGKILL') {
    if (!this.child) return;
    signal(this.child, name);
    await this.ended;
    this.child = null;
  }
}

async function answers(url) {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2_000), redirect: 'manual' });
    await response.arrayBuffer();
    return response.status < 500;
  } catch {
    return false;
  }
}

export class Stack {
  #contexts = [];

  /**
   * `jwtLifetime`: such as "3s". `keyRotation`, `keyGrace`: seconds. `leeway`: seconds of clock difference the server allows.
   */
  static async start({ jwtLifetime = '15m', keyRotation, keyGrace, leeway = 1 } = {}) {
    for (const [file, how] of [
      [join(app, '.next/BUILD_ID'), 'npm run build'],
      [serverBinary, 'cargo build -p todo-server, or set TODO_SERVER'],
      [browserBinary, 'apt-get install chromium, or set CHROMIUM'],
    ]) {
      if (!existsSync(file)) throw new Error(`${file} is missing: ${how}`);
    }

    const stack = new Stack();
    stack.folder = mkdtempSync(join(tmpdir(), 'todo-e2e-'));
    const [appPort, apiPort] = [await freePort(), await freePort()];
    stack.appUrl = `http://localhost:${appPort}`;
    stack.apiUrl = `http://127.0.0.1:${apiPort}/api`;
    // Only what a program needs to run, so that settings of this machine do not leak in.
    const base = { PATH: process.env.PATH, HOME: stack.folder, LANG: 'C.UTF-8' };

    stack.app = new Program(
      'the Next.js app',
      process.execPath,
      [join(app, 'node_modules/next/dist/bin/next'), 'start', '--hostname', '127.0.0.1', '--port', String(appPort)],
      {
        ...base,
        NODE_ENV: 'production',
        NEXT_TELEMETRY_DISABLED: '1',
        BETTER_AUTH_SECRET: 'only for this test: 0123456789abcdef0123456789abcdef',
        BETTER_AUTH_URL: stack.appUrl,
        AUTH_DATABASE: join(stack.folder, 'auth.sqlite'),
        NEXT_PUBLIC_TODO_API: stack.apiUrl,
        TODO_JWT_LIFETIME: jwtLifetime,
        TODO_KEY_ROTATION: String(keyRotation ?? ''),
        TODO_KEY_GRACE: String(keyGrace ?? ''),
      },
      `${stack.appUrl}/sign-in`,
    );
    stack.api = new Program(
      'todo-server',
      serverBinary,
      [],
      {
        ...base,
        HOST: '127.0.0.1',
        PORT: String(apiPort),
        BETTER_AUTH_URL: stack.appUrl,
        ALLOWED_ORIGINS: stack.appUrl,
        DATABASE_URL: `sqlite://${join(stack.folder, 'tasks.sqlite')}`,
        LOG_LEVEL: 'info',
        [leewayVariable]: String(leeway),
      },
      `http://127.0.0.1:${apiPort}/health`,
    );

    try {
      await stack.app.start();
      await stack.api.start();
      stack.browser = await chromium.launch({ executablePath: browserBinary, args: BROWSER_ARGS });
    } catch (error) {
      await stack.stop();
      throw error;
    }
    return stack;
  }

  /** Somebody with a browser of their own: no cookie or storage is shared. */
  async visitor(name, options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1100, height: 800 }, ...options });
    this.#contexts.push(context);
    return Visitor.open(this, context, name);
  }

  async screenshot(page, name) {
    mkdirSync(screenshots, { recursive: true });
    await page.waitForTimeout(350); // for the transitions to end
    await page.screenshot({ path: join(screenshots, `${name}.png`) });
  }

  /** What helps to understand a failure. */
  async report(name) {
    const pages = this.#contexts.flatMap((context) => context.pages());
    for (const [number, page] of pages.entries()) {
      await this.screenshot(page, `failed-${name}-${number + 1}`).catch(() => {});
    }
    for (const program of [this.app, this.api]) console.error(`--- output of ${program.name}\n${program.log}---`);
  }

  async stop() {
    await this.browser?.close().catch(() => {});
    await Promise.all([this.app.stop('SIGKILL'), this.api.stop('SIGKILL')]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
