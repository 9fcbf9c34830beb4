// The whole product as a user meets it: Better Auth issues the tokens, todo-server checks them, a browser shows the page.
// See stack.mjs for the settings; scripts/test-e2e prepares everything and runs this.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { readFileSync } from 'node:fs';
import { Stack } from './stack.mjs';

/** How long the app stays away in the outage test: longer than the server goes without asking for the keys. */
const OUTAGE_SECONDS = Number(process.env.E2E_OUTAGE_SECONDS ?? 65);

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** A test with a stack of its own, stopped whatever happens. */
function scenario(name, options, body) {
  test(name, { timeout: 240_000 }, async () => {
    const stack = await Stack.start(options);
    try {
      await body(stack);
    } catch (error) {
      await stack.report(name.split(' ').slice(0, 4).join('-').replace(/[^\w-]/g, ''));
      throw error;
    } finally {
      await stack.stop();
    }
  });
}

scenario('two users each see only their own tasks', {}, async (stack) => {
  const [ada, bob] = [await stack.visitor('Ada'), await stack.visitor('Bob')];
  await ada.page.goto(stack.appUrl);
  await stack.screenshot(ada.page, 'sign-in');
  await ada.signUp();
  await stack.screenshot(ada.page, 'empty');
  await bob.signUp();

  await ada.add('Water the ferns', 'Not too much.');
  await ada.add('Ring Mum back');
  await ada.add('Book the night train');
  await bob.add('Feed the cat');
  assert.deepEqual(await ada.titles(), ['Book the night train', 'Ring Mum back', 'Water the ferns'], 'newest first');
  assert.deepEqual(await bob.titles(), ['Feed the cat']);

  await ada.edit('Ring Mum back', { title: 'Ring Mum and Dad back', description: 'After eight.\nBoth numbers.' });
  await ada.toggle('Water the ferns');
  await stack.screenshot(ada.page, 'list');
  await ada.show('Open');
  assert.deepEqual(await ada.titles(), ['Book the night train', 'Ring Mum and Dad back']);
  await ada.show('Done');
  assert.deepEqual(await ada.titles(), ['Water the ferns']);
  await ada.toggle('Water the ferns');
  await ada.page.getByText('Nothing done yet').waitFor();
  await ada.show('All');
  await ada.toggle('Water the ferns');
  await ada.remove('Book the night train');

  await ada.reload();
  assert.deepEqual(await ada.titles(), ['Ring Mum and Dad back', 'Water the ferns']);
  assert.equal(await ada.isDone('Water the ferns'), true);
  assert.equal(await ada.isDone('Ring Mum and Dad back'), false);
  assert.equal(await ada.row('Ring Mum and Dad back').locator('p').textContent(), 'After eight.\nBoth numbers.');
  await bob.reload();
  assert.deepEqual(await bob.titles(), ['Feed the cat'], "nothing of Ada's");

  // An empty description clears it.
  await ada.edit('Ring Mum and Dad back', { description: '' });
  await ada.reload();
  assert.equal(await ada.row('Ring Mum and Dad back').locator('p').count(), 0);
  await ada.assertNoProblem();
  await bob.assertNoProblem();

  // What the browser stored, anywhere, holds no token.
  const stored = JSON.stringify(await ada.page.evaluate(() => [{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  assert.doesNotMatch(stored, /eyJ/);
});

scenario('a long list comes in pages', {}, async (stack) => {
  const ada = await stack.visitor('Ada');
  await ada.signUp();
  const { token } = await ada.page.evaluate(() => fetch('/api/auth/token').then((response) => response.json()));
  for (let number = 1; number <= 45; number += 1) {
    const response = await fetch(`${stack.apiUrl}/tasks`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: JSON.stringify({ title: `Task ${number}`, completed: number % 2 === 0 }),
    });
    assert.equal(response.status, 201);
  }
  const more = ada.page.getByRole('button', { name: 'Load more' });
  const numbered = (from, step) => Array.from({ length: Math.ceil(from / step) }, (_, at) => `Task ${from - at * step}`);

  await ada.reload();
  assert.deepEqual(await ada.titles(), numbered(45, 1).slice(0, 20));
  await more.click();
  await ada.row('Task 6').waitFor();
  assert.equal(await ada.checkbox('Task 25').evaluate((box) => box === document.activeElement), true, 'focus on the first new one');
  await more.click();
  await ada.row('Task 1').waitFor();
  assert.deepEqual(await ada.titles(), numbered(45, 1));
  assert.equal(await more.count(), 0);

  await ada.show('Open');
  await more.click();
  await ada.row('Task 1').waitFor();
  assert.deepEqual(await ada.titles(), numbered(45, 2), 'the filter holds on later pages');
  await ada.assertNoProblem();
});

scenario('signing out ends it, in every tab', {}, async (stack) => {
  const ada = await stack.visitor('Ada');
  await ada.signUp();
  await ada.add('A secret plan');
  const other = await ada.context.newPage();
  await other.goto(stack.appUrl);
  await other.getByText('A secret plan').waitFor();

  await ada.signOut();
  await ada.page.getByText('You are signed out.').waitFor();
  await other.waitForURL(/\/sign-in/);
  await stack.screenshot(ada.page, 'signed-out');
  for (const page of [ada.page, other]) assert.doesNotMatch(await page.content(), /secret plan/);

  await ada.page.goBack().catch(() => {});
  await ada.page.waitForLoadState();
  assert.doesNotMatch(await ada.page.content(), /secret plan/);
  assert.equal(await ada.page.locator('.task').count(), 0);
  await ada.page.goto(stack.appUrl);
  await ada.page.getByRole('heading', { name: 'Welcome back' }).waitFor();
  assert.match(ada.page.url(), /\/sign-in$/);

  await ada.signIn();
  assert.deepEqual(await ada.titles(), ['A secret plan']);
});

scenario('a token that expires is replaced unnoticed', { jwtLifetime: '2s', leeway: 1 }, async (stack) => {
  const ada = await stack.visitor('Ada');
  await ada.signUp();
  await ada.add('Water the ferns');

  let done = false;
  const deadline = Date.now() + 90_000;
  for (let renewals = 0; renewals < 2; ) {
    assert.ok(Date.now() < deadline, 'the server refuses an expired token');
    await sleep(4_000);
    const refused = ada.count(401);
    await ada.toggle('Water the ferns');
    done = !done;
    assert.equal(await ada.isDone('Water the ferns'), done);
    if (ada.count(401) > refused) {
      assert.equal(ada.count(401), refused + 1, 'refused once, then good');
      renewals += 1;
    }
  }
  assert.ok(new Set(ada.calls.map((call) => call.token)).size >= 3, 'new tokens');
  await ada.assertNoProblem();
  await ada.reload();
  assert.equal(await ada.isDone('Water the ferns'), done);
});

scenario('the signing key rotates without anybody noticing', { jwtLifetime: '2s', keyRotation: 12, keyGrace: 600, leeway: 1 }, async (stack) => {
  const ada = await stack.visitor('Ada');
  await ada.signUp();
  await ada.add('Water the ferns');

  let done = false;
  const deadline = Date.now() + 150_000;
  while (ada.keyIds().length < 3) {
    assert.ok(Date.now() < deadline, `three keys seen: ${ada.keyIds()}`);
    await sleep(1_500);
    await ada.toggle('Water the ferns');
    done = !done;
    assert.equal(await ada.isDone('Water the ferns'), done);
    await ada.assertNoProblem();
  }
  await ada.add('Ring Mum back');
  assert.ok(ada.count(503) <= ada.keyIds().length, `at most one wait per key: ${ada.count(503)}`);
  assert.equal(ada.calls.filter((call) => call.status >= 500 && call.status !== 503).length, 0);
  await ada.assertNoProblem();
});

scenario('the app goes away and comes back; the API keeps serving', {}, async (stack) => {
  const ada = await stack.visitor('Ada');
  await ada.signUp();
  await ada.add('Water the ferns');

  await stack.app.stop('SIGKILL');
  const back = Date.now() + OUTAGE_SECONDS * 1000;
  let done = false;
  do {
    await ada.toggle('Water the ferns');
    done = !done;
    await sleep(3_000);
  } while (Date.now() < back);
  await ada.add('Written during the outage');
  await ada.assertNoProblem();
  assert.equal(ada.count(401) + ada.count(503), 0, 'served with the keys it had');

  // Signing out needs the app: it says so instead of pretending.
  await ada.page.getByRole('button', { name: 'Sign out' }).click();
  await ada.page.getByText('You are still signed in').waitFor();
  await stack.screenshot(ada.page, 'outage');
  await ada.page.getByRole('button', { name: 'Dismiss' }).click();

  await stack.app.start();
  await ada.reload();
  assert.deepEqual(await ada.titles(), ['Written during the outage', 'Water the ferns']);
  assert.equal(await ada.isDone('Water the ferns'), done);
  await ada.add('Written afterwards');
  await ada.assertNoProblem();
});

scenario('problems are told, and nothing typed is lost', {}, async (stack) => {
  const ada = await stack.visitor('Ada');
  await ada.signUp();
  await ada.add('Water the ferns');
  const title = ada.page.locator('#new-title');
  const addButton = ada.page.getByRole('button', { name: 'Add task' });

  // What the server says about a field, at the field.
  const long = 'ü'.repeat(201);
  await title.fill(long);
  await addButton.click();
  await ada.page.locator('.field-problem').waitFor();
  assert.match(await ada.page.locator('.field-problem').textContent(), /The title .*200/);
  assert.equal(await title.getAttribute('aria-invalid'), 'true');
  assert.equal(await title.inputValue(), long);
  await stack.screenshot(ada.page, 'field-error');
  await title.fill('   ');
  await addButton.click();
  await ada.page.getByText('Please give the task a title.').waitFor();

  // A busy server is waited for as long as it asks, and the page says so.
  let refusals = 1;
  const busy = async (route) => {
    if (route.request().method() === 'OPTIONS' || refusals-- <= 0) return route.continue();
    return route.fulfill({
      status: 503,
      headers: {
        'Access-Control-Allow-Origin': stack.appUrl,
        'Access-Control-Expose-Headers': 'Retry-After',
        'Content-Type': 'application/problem+json',
        'Retry-After': '2',
      },
      body: JSON.stringify({ status: 503, code: 'unavailable', title: 'Unavailable', detail: 'The store cannot be reached.' }),
    });
  };
  await ada.page.route(`${stack.apiUrl}/**`, busy);
  await title.fill('Patience');
  await addButton.click();
  await ada.page.getByText('The task service is busy. Trying again in 2 seconds').waitFor();
  await ada.row('Patience').waitFor();
  await ada.assertNoProblem();
  // ... but not for ever.
  refusals = Infinity;
  await ada.checkbox('Patience').click();
  await ada.page.getByText('“Patience” was not changed. The store cannot be reached.').waitFor();
  assert.equal(await ada.isDone('Patience'), false, 'back to what the server has');
  await ada.page.unroute(`${stack.apiUrl}/**`, busy);

  // A server that is gone.
  await stack.api.stop('SIGKILL');
  await title.fill('Typed while it was away');
  await ada.page.locator('#new-description').fill('With details.');
  await addButton.click();
  await ada.page.locator('.form-problem').getByText('cannot be reached').waitFor();
  assert.equal(await title.inputValue(), 'Typed while it was away');
  await stack.screenshot(ada.page, 'unreachable');
  await ada.page.reload();
  await ada.page.getByText('Your tasks could not be loaded').waitFor();
  assert.equal(await title.inputValue(), 'Typed while it was away', 'kept over a reload');
  await stack.screenshot(ada.page, 'could-not-load');
  await stack.api.start();
  await ada.page.getByRole('button', { name: 'Try again' }).click();
  await ada.loaded();
  await addButton.click();
  await ada.row('Typed while it was away').waitFor();
  assert.equal(await title.inputValue(), '');
});

scenario('an ended session leads to sign-in, with what was typed', { jwtLifetime: '1s', leeway: 1 }, async (stack) => {
  const [ada, bob] = [await stack.visitor('Ada'), await stack.visitor('Bob')];
  await ada.signUp();
  await bob.signUp();
  await ada.add('Water the ferns');
  const leftWith = async (action) => {
    const deadline = Date.now() + 60_000;
    do {
      assert.ok(Date.now() < deadline, 'the server refuses an expired token');
      await sleep(3_000);
      await action();
      await sleep(1_000);
    } while (await ada.page.locator('.composer').count());
  };

  // The session is gone, the token still good for a moment.
  await ada.context.clearCookies();
  await leftWith(async () => {
    const title = ada.page.locator('#new-title');
    if ((await title.inputValue()) === '') await title.fill('Half a thought');
    if (ada.calls.at(-1).status !== 401) await ada.checkbox('Water the ferns').click();
  }).catch((error) => {
    if (!/detached|closed|navigat|destroyed/i.test(error.message)) throw error;
  });
  await ada.page.getByText('Your session has ended.').waitFor();
  await stack.screenshot(ada.page, 'session-ended');
  await ada.signIn();
  assert.equal(await ada.page.locator('#new-title').inputValue(), 'Half a thought');
  await ada.page.locator('#new-title').fill('');

  // Bob signs in, in another tab of Ada's browser: her page must not go on with his token.
  await ada.context.clearCookies();
  await ada.context.addCookies(await bob.context.cookies());
  const before = bob.calls.length;
  await ada.page.waitForTimeout(4_000);
  await ada.page.locator('#new-title').fill("For Ada's eyes only");
  for (let tries = 0; tries < 20 && (await ada.page.getByText('Ada', { exact: true }).count()); tries += 1) {
    await ada.checkbox('Water the ferns').click({ timeout: 2_000 }).catch(() => {});
    await sleep(2_000);
  }
  await ada.page.getByText('Bob', { exact: true }).waitFor();
  await ada.loaded();
  assert.deepEqual(await ada.titles(), [], "Bob's list, which is empty");
  assert.doesNotMatch(await ada.page.content(), /ferns|eyes only/);
  assert.equal(await ada.page.locator('#new-title').inputValue(), '');
  assert.equal(bob.calls.length, before);
});

scenario('everything works with the keyboard, and has a name', {}, async (stack) => {
  const ada = await stack.visitor('Ada');
  const { page } = ada;
  const keys = page.keyboard;

  /** What has the focus: its name, and whether one can see it. */
  const focused = () =>
    page.evaluate(() => {
      const element = document.activeElement;
      const name = element.ariaLabel || element.labels?.[0]?.textContent || element.textContent;
      const outlined = [element, element.nextElementSibling, element.closest('.field')].some(
        (candidate) => candidate && getComputedStyle(candidate).outlineStyle !== 'none',
      );
      return { name: name.trim(), outlined, lost: element === document.body };
    });
  const tabTo = async (name, key = 'Tab') => {
    for (let presses = 0; presses < 40; presses += 1) {
      await keys.press(key);
      const now = await focused();
      if (now.name !== name) continue;
      assert.ok(now.outlined, `the focus on “${name}” is visible`);
      return;
    }
    assert.fail(`“${name}” cannot be reached with ${key}`);
  };
  const said = (text) => page.locator('p[role=status]').getByText(text, { exact: true }).waitFor({ state: 'attached' });
  const audit = async (what) => {
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.waitForTimeout(350); // colours change over a moment
      await page.evaluate(axe);
      const violations = await page.evaluate(async () => (await globalThis.axe.run()).violations);
      const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' ')}`);
      assert.deepEqual(found, [], `${what}, ${colorScheme}`);
      await stack.screenshot(page, `${what}-${colorScheme}`);
    }
    const unnamed = await page.locator('button, input, textarea, a, [role=group]').evaluateAll((elements) =>
      elements.filter((e) => !(e.ariaLabel || e.labels?.[0]?.textContent.trim() || e.textContent.trim())).map((e) => e.outerHTML),
    );
    assert.deepEqual(unnamed, [], `every control of ${what} has a name`);
  };

  await page.goto(`${stack.appUrl}/nowhere`);
  await page.getByRole('heading', { name: 'There is nothing here' }).waitFor();
  await audit('a11y-not-found');
  await tabTo('To your tasks');
  await keys.press('Enter');
  await page.getByRole('heading', { name: 'Welcome back' }).waitFor();
  await audit('a11y-sign-in');
  await tabTo('Create an account');
  await keys.press('Enter');
  await page.waitForURL(/sign-up/);
  await page.getByRole('heading', { name: 'Create your account' }).waitFor();
  await tabTo('Name');
  await keys.press('Enter');
  await page.getByText('Please enter your name.').waitFor();
  assert.equal((await focused()).name, 'Name', 'the first field to correct has the focus');
  await audit('a11y-sign-up-errors');
  await keys.type('Ada');
  await tabTo('E-mail');
  await keys.type(ada.email);
  await tabTo('Password');
  await keys.type(ada.password);
  await keys.press('Enter');
  await page.waitForURL(`${stack.appUrl}/`);
  await ada.loaded();
  await audit('a11y-empty');

  await tabTo('New task');
  await keys.type('Water the ferns');
  await tabTo('Details (optional)');
  await keys.type('Not too much.');
  await keys.press('Control+Enter');
  await said('“Water the ferns” is added.');
  assert.equal((await focused()).name, 'New task', 'ready for the next one');
  await keys.type('Ring Mum back');
  await keys.press('Enter');
  await said('“Ring Mum back” is added.');

  await tabTo('Water the ferns');
  await keys.press('Space');
  await said('“Water the ferns” is done.');
  await keys.press('Space');
  await said('“Water the ferns” is open again.');
  await audit('a11y-list');

  await tabTo('Edit “Water the ferns”');
  await keys.press('Enter');
  assert.equal((await focused()).name, 'Title');
  await audit('a11y-editing');
  await keys.press('Control+A');
  await keys.type('Water all the plants');
  await keys.press('Escape');
  assert.equal((await focused()).name, 'Edit “Water the ferns”', 'Escape changes nothing and goes back');
  await keys.press('Enter');
  await keys.press('Control+A');
  await keys.type('Water the fern');
  await keys.press('Enter');
  await said('“Water the fern” is saved.');
  assert.equal((await focused()).name, 'Edit “Water the fern”');

  await tabTo('Delete “Water the fern”');
  await keys.press('Enter');
  assert.equal((await focused()).name, 'Keep', 'the harmless answer first');
  await audit('a11y-deleting');
  await keys.press('Escape');
  assert.equal((await focused()).name, 'Delete “Water the fern”');
  await keys.press('Enter');
  await tabTo('Delete', 'Shift+Tab');
  await keys.press('Enter');
  await said('“Water the fern” is deleted.');
  assert.deepEqual(await ada.titles(), ['Ring Mum back']);
  assert.equal((await focused()).name, 'Ring Mum back', 'the focus moved to the neighbour');

  await keys.press('Space');
  await said('“Ring Mum back” is done.');
  await tabTo('All', 'Shift+Tab');
  await keys.press('ArrowRight');
  await page.getByText('Nothing is waiting for you.').waitFor();
  await keys.press('ArrowRight');
  await ada.row('Ring Mum back').waitFor();
  await audit('a11y-filtered');

  await stack.api.stop('SIGKILL');
  await page.reload();
  await page.getByText('Your tasks could not be loaded').waitFor();
  await audit('a11y-problem');

  // On a narrow screen nothing is cut off.
  await page.setViewportSize({ width: 320, height: 640 });
  await stack.screenshot(page, 'a11y-narrow');
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
  await tabTo('Sign out', 'Shift+Tab');
  await keys.press('Enter');
  await page.waitForURL(/\/sign-in/);
});

/** A client of Better Auth and of the API without a browser: keeps the cookies, as a phone app would. */
class App {
  #cookies = new Map();

  constructor(stack) {
    this.stack = stack;
  }

  async auth(path, body) {
    const response = await fetch(`${this.stack.appUrl}/api/auth${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: {
        'Content-Type': 'application/json',
        Origin: this.stack.appUrl,
        Cookie: [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; '),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [, name, value, attributes] = cookie.match(/^([^=]+)=([^;]*)(.*)$/);
      if (/max-age=0/i.test(attributes)) this.#cookies.delete(name);
      else this.#cookies.set(name, value);
    }
    return { status: response.status, body: await response.json().catch(() => null) };
  }

  async token() {
    return (await this.auth('/token')).body.token;
  }

  async tasks(method, path, token, body) {
    const response = await fetch(`${this.stack.apiUrl}${path}`, {
      method,
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    });
    return { status: response.status, body: await response.json().catch(() => null) };
  }

  async titles(token) {
    return (await this.tasks('GET', '/tasks', token)).body.map((task) => task.title);
  }
}

scenario('a guest who signs up keeps the tasks, and a deleted account leaves none', {}, async (stack) => {
  const app = new App(stack);
  const account = { name: 'Ada', email: 'ada@example.com', password: "Ada's long secret" };
  assert.equal((await app.auth('/sign-in/anonymous', {})).status, 200);
  const asGuest = await app.token();
  const created = await app.tasks('POST', '/tasks', asGuest, { title: 'Buy milk', description: 'Two bottles' });
  assert.equal(created.status, 201);
  await app.tasks('POST', '/tasks', asGuest, { title: 'Buy bread' });

  // While the API cannot be reached, the sign-up fails, and the guest stays.
  await stack.api.stop('SIGKILL');
  assert.equal((await app.auth('/sign-up/email', { ...account, email: 'early@example.com' })).status, 500);
  await stack.api.start();
  assert.deepEqual(await app.titles(asGuest), ['Buy bread', 'Buy milk']);

  assert.equal((await app.auth('/sign-up/email', account)).status, 200);
  const asAda = await app.token();
  assert.notEqual(asAda, asGuest);
  assert.deepEqual(await app.titles(asAda), ['Buy bread', 'Buy milk']);
  const moved = (await app.tasks('GET', `/tasks/${created.body.id}`, asAda)).body;
  assert.deepEqual({ ...moved, user_id: null }, { ...created.body, user_id: null }, 'unchanged but for the owner');
  assert.deepEqual(await app.titles(asGuest), []);

  // Another account is not touched by the deletion.
  const other = new App(stack);
  await other.auth('/sign-up/email', { ...account, email: 'bob@example.com' });
  const asBob = await other.token();
  await other.tasks('POST', '/tasks', asBob, { title: 'Feed the cat' });
  assert.equal((await app.auth('/delete-user', { password: account.password })).status, 200);
  assert.deepEqual(await app.titles(asAda), [], 'the token outlives the account, and finds no task');
  assert.deepEqual(await other.titles(asBob), ['Feed the cat']);
  assert.doesNotMatch(stack.app.log + stack.api.log, /eyJ/, 'no token in a log');
});

scenario('tasks of a deleted account that could not be erased are named in the log', {}, async (stack) => {
  const app = new App(stack);
  const account = { name: 'Ada', email: 'ada@example.com', password: "Ada's long secret" };
  const signedUp = await app.auth('/sign-up/email', account);
  await stack.api.stop('SIGKILL');
  assert.equal((await app.auth('/delete-user', { password: account.password })).status, 200);
  assert.match(stack.app.log, new RegExp(`todo-server user erase ${signedUp.body.user.id}`));
});

scenario("the API's documentation is tried out behind a proxy, and asks nobody else", {}, async (stack) => {
  // A proxy that cuts its prefix off, as the server would have it in production.
  const proxy = createServer((from, to) => {
    const path = from.url.replace(/^\/behind\/a\/proxy\//, '/');
    const sent = request(new URL(path, stack.apiUrl), { method: from.method, headers: from.headers }, (answer) => {
      to.writeHead(answer.statusCode, answer.headers);
      answer.pipe(to);
    });
    from.pipe(sent);
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  try {
    const ada = await stack.visitor('Ada');
    await ada.signUp();
    const { token } = await ada.page.evaluate(() => fetch('/api/auth/token').then((response) => response.json()));

    const { page } = await stack.visitor('Reader');
    const here = `http://127.0.0.1:${proxy.address().port}/behind/a/proxy/`;
    const [asked, complaints] = [[], []];
    page.on('request', (sent) => asked.push(sent.url()));
    page.on('console', (message) => complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(String(error)));
    await page.addInitScript(() => addEventListener('securitypolicyviolation', (event) => console.error(`refused: ${event.blockedURI}`)));
    await page.goto(`${here}docs`);

    await page.getByRole('button', { name: 'Authorize', exact: true }).click();
    await page.getByLabel('auth-bearer-value').fill(token);
    await page.locator('.auth-btn-wrapper').getByRole('button', { name: 'Apply credentials' }).click();
    await page.locator('.auth-btn-wrapper').getByRole('button', { name: 'Close' }).click();
    const create = page.locator('#operations-tasks-create_task');
    await create.locator('.opblock-summary-control').click();
    await create.getByRole('button', { name: 'Execute' }).click();
    await create.locator('.live-responses-table .response-col_status', { hasText: '201' }).waitFor();
    await stack.screenshot(page, 'documentation');

    await ada.reload();
    assert.deepEqual(await ada.titles(), ['Buy milk'], 'the example of the document');
    assert.deepEqual(asked.filter((url) => !url.startsWith(here) && !url.startsWith('data:')), [], 'nothing from elsewhere');
    assert.ok(asked.includes(`${here}openapi.json`) && asked.includes(`${here}api/v1/tasks`), asked.join('\n'));
    assert.deepEqual(complaints, []);
  } finally {
    proxy.closeAllConnections();
    proxy.close();
  }
});
