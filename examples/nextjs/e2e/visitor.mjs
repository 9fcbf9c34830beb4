// A person in front of the page: does what people do, and notes what the page asks the API.

import assert from 'node:assert/strict';

/** An action may include one wait for a busy service (15 s at most) and its second try. */
const ACTION_WITHIN_MS = 40_000;

export class Visitor {
  /** What the page sent to the API: `{ method, path, search, status, token, after }`. `after` is the `Last-Event-ID`. */
  calls = [];

  static async open(stack, context, name) {
    const visitor = new Visitor();
    const page = await context.newPage();
    page.setDefaultTimeout(ACTION_WITHIN_MS);
    Object.assign(visitor, { stack, context, page, name, email: `${name.toLowerCase()}@example.com`, password: `${name}'s secret` });
    visitor.watch(page);
    return visitor;
  }

  watch(page) {
    page.on('response', async (response) => {
      if (!response.url().startsWith(this.stack.apiUrl)) return;
      const request = response.request();
      const token = (request.headers().authorization ?? '').replace('Bearer ', '');
      const { pathname: path, search } = new URL(response.url());
      const after = request.headers()['last-event-id'];
      this.calls.push({ method: request.method(), path, search, status: response.status(), token, after });
    });
    page.on('pageerror', (error) => this.errors.push(error));
  }

  /** Exceptions nobody caught on the page. */
  errors = [];

  async signUp() {
    await this.page.goto(`${this.stack.appUrl}/sign-up`);
    await this.page.getByLabel('Name').fill(this.name);
    await this.#credentials('Create account');
  }

  async signIn() {
    if (!new URL(this.page.url()).pathname.startsWith('/sign-in')) await this.page.goto(`${this.stack.appUrl}/sign-in`);
    await this.#credentials('Sign in');
  }

  async #credentials(button) {
    await this.page.getByLabel('E-mail').fill(this.email);
    await this.page.getByLabel('Password', { exact: true }).fill(this.password);
    await this.page.getByRole('button', { name: button }).click();
    await this.page.waitForURL(`${this.stack.appUrl}/`);
    await this.loaded();
  }

  async reload() {
    await this.page.reload();
    await this.loaded();
  }

  /** The list, or the word that it is empty, is there. */
  async loaded() {
    await this.page.locator('.tasks, .message').first().waitFor();
  }

  row(title) {
    return this.page.getByRole('listitem').filter({ has: this.page.getByRole('checkbox', { name: title, exact: true }) });
  }

  checkbox(title) {
    return this.page.getByRole('checkbox', { name: title, exact: true });
  }

  async titles() {
    return this.page.locator('.task-title').allTextContents();
  }

  async isDone(title) {
    return this.checkbox(title).isChecked();
  }

  /** `fields`: description, date, time, priority, list, tags (an array). */
  async add(title, fields = {}) {
    const form = this.page.locator('.composer');
    await form.locator('#new-title').fill(title);
    if (Object.keys(fields).length > 0) {
      if (!(await form.getByLabel('Notes').count())) await form.getByRole('button', { name: 'Details' }).click();
      await this.#fill(form, fields);
    }
    await this.told(/is added\./, () => this.page.getByRole('button', { name: 'Add task' }).click());
  }

  async edit(title, fields) {
    await this.page.getByRole('button', { name: `Edit “${title}”` }).click();
    const form = this.page.locator('.task-editing');
    if (fields.title !== undefined) await form.getByLabel('Title').fill(fields.title);
    await this.#fill(form, fields);
    await this.told(/is saved\./, () => form.getByRole('button', { name: 'Save' }).click());
  }

  async #fill(form, { description, date, time, priority, list, tags = [] }) {
    if (description !== undefined) await form.getByLabel('Notes').fill(description);
    if (date !== undefined) await form.getByLabel('Due date').fill(date);
    if (time !== undefined) await form.getByLabel('Time').fill(time);
    if (priority !== undefined) await form.getByLabel('Priority').selectOption(priority);
    if (list !== undefined) await form.getByLabel('List').fill(list);
    for (const tag of tags) {
      await form.getByLabel('Tags').fill(tag);
      await form.getByLabel('Tags').press('Enter');
    }
  }

  /** Ticks or unticks, and waits for the API's answer to it. */
  async toggle(title) {
    await this.told(/is (done|open again)\.( It is not sent yet\.)?$/, () => this.checkbox(title).click());
  }

  /** Deletes: the API is told six seconds later, or when the page is left. */
  async remove(title) {
    const button = this.page.getByRole('button', { name: `Delete “${title}”` });
    await this.told(/is deleted\. Press Control and Z to undo\.$/, () => button.click());
    await this.row(title).waitFor({ state: 'detached' });
  }

  /** Runs `action` and waits until the page says so; a problem shown instead is the failure. */
  async told(pattern, action) {
    const status = this.page.locator('p[role=status] > span');
    const before = await status.evaluate((element) => {
      element.dataset.seen = 'yes'; // replaced by a new element with the next announcement
      return element.textContent;
    });
    await action();
    const fresh = this.page.locator('p[role=status] > span:not([data-seen])');
    const problem = this.page.locator('.notice-problem, .form-problem, .field-problem');
    await fresh.or(problem).first().waitFor({ state: 'attached' });
    assert.equal(await problem.count(), 0, `a problem is shown: ${await problem.allTextContents()}`);
    assert.match((await fresh.textContent()) ?? '', pattern, `before: ${before}`);
  }

  async show(filter) {
    await this.#shown(() => this.page.getByRole('radio', { name: filter }).check());
  }

  /** Opens a place of the sidebar, such as "Today" or a list. */
  async open(place) {
    await this.#shown(() => this.page.getByRole('navigation').getByRole('link', { name: place }).click());
    await this.page.getByRole('heading', { level: 2, name: place, exact: true }).waitFor();
  }

  async sort(order) {
    await this.#shown(() => this.page.getByLabel('Sort').selectOption(order));
  }

  async search(text) {
    await this.page.getByLabel('Search tasks').fill(text);
    await this.#shown(() => this.page.waitForURL((url) => (url.searchParams.get('q') ?? '') === text));
  }

  /** Runs `action`, which makes the page show another list, and waits for it. */
  async #shown(action) {
    await action();
    await this.page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
    await this.loaded();
  }

  /** The rows are these, at the latest after a second and a half. */
  async sees(titles, message) {
    const deadline = Date.now() + 1_500;
    while (JSON.stringify(await this.titles()) !== JSON.stringify(titles) && Date.now() < deadline) await this.page.waitForTimeout(20);
    assert.deepEqual(await this.titles(), titles, message);
  }

  /** Everything is sent. */
  async sent() {
    await this.page.locator('.unsent, .notice-unsent').first().waitFor({ state: 'detached' });
  }

  /** The count beside a place of the sidebar, once it is what is expected. */
  async counts(expected) {
    const read = async () => {
      const entries = await this.page.getByRole('navigation').getByRole('link').evaluateAll((links) =>
        links.map((link) => [
          link.querySelector('.place-name').textContent,
          Number(link.querySelector('.badge')?.firstChild.textContent ?? 0),
        ]),
      );
      return Object.fromEntries(entries);
    };
    const deadline = Date.now() + 5_000;
    let found = await read();
    while (JSON.stringify(found) !== JSON.stringify(expected) && Date.now() < deadline) {
      await this.page.waitForTimeout(50);
      found = await read();
    }
    assert.deepEqual(found, expected);
  }

  /** Asks the API as this user, without the page. */
  async api(method, path, body) {
    this.token ??= (await this.page.evaluate(() => fetch('/api/auth/token').then((response) => response.json()))).token;
    const response = await fetch(`${this.stack.apiUrl}${path}`, {
      method,
      headers: { Authorization: `Bearer ${this.token}`, 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    return { status: response.status, body: await response.json().catch(() => null) };
  }

  /** The tasks as the API has them, by title. */
  async stored() {
    const { body } = await this.api('GET', '/tasks?limit=200');
    return Object.fromEntries(body.map((task) => [task.title, task]));
  }

  async signOut() {
    await this.page.getByRole('button', { name: 'Sign out' }).click();
    await this.page.waitForURL(/\/sign-in/);
  }

  /** The user has noticed nothing. */
  async assertNoProblem() {
    const problems = await this.page.locator('.notice-problem, .form-problem, .field-problem').allTextContents();
    assert.deepEqual(problems, [], 'no problem is shown');
    assert.deepEqual(this.errors, [], 'no exception on the page');
  }

  assertNoException() {
    assert.deepEqual(this.errors, [], 'no exception on the page');
  }

  /** The ids of the keys that signed the tokens used so far, in order of appearance. */
  keyIds() {
    const header = (token) => JSON.parse(Buffer.from(token.split('.')[0], 'base64url').toString());
    return [...new Set(this.calls.filter((call) => call.token).map((call) => header(call.token).kid))];
  }

  count(status) {
    return this.calls.filter((call) => call.status === status).length;
  }
}
