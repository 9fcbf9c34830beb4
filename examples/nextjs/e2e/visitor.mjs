// A person in front of the page: does what people do, and notes what the page asks the API.

import assert from 'node:assert/strict';

/** An action may include one wait for a busy service (15 s at most) and its second try. */
const ACTION_WITHIN_MS = 40_000;

export class Visitor {
  /** What the page sent to the API: `{ method, path, status, token }`. */
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
      this.calls.push({ method: request.method(), path: new URL(response.url()).pathname, status: response.status(), token });
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
    await this.page.locator('.tasks:not([aria-busy=true]), .message').first().waitFor();
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

  async add(title, description = '') {
    await this.page.getByLabel('New task', { exact: true }).fill(title);
    await this.page.locator('.composer').getByLabel('Details').fill(description);
    await this.page.getByRole('button', { name: 'Add task' }).click();
    await this.row(title).waitFor();
  }

  async edit(title, fields) {
    await this.page.getByRole('button', { name: `Edit “${title}”` }).click();
    const form = this.page.locator('.task-editing');
    if (fields.title !== undefined) await form.getByLabel('Title').fill(fields.title);
    if (fields.description !== undefined) await form.getByLabel('Details').fill(fields.description);
    await form.getByRole('button', { name: 'Save' }).click();
    await this.row(fields.title ?? title).waitFor();
  }

  /** Ticks or unticks, and waits for the API's answer to it. */
  async toggle(title) {
    await this.#told(/is (done|open again)\.$/, () => this.checkbox(title).click());
  }

  async remove(title) {
    await this.page.getByRole('button', { name: `Delete “${title}”` }).click();
    await this.#told(/is deleted\.$/, () => this.page.getByRole('button', { name: 'Delete', exact: true }).click());
    await this.row(title).waitFor({ state: 'detached' });
  }

  /** Runs `action` and waits until the page says so; a problem shown instead is the failure. */
  async #told(pattern, action) {
    const status = this.page.locator('p[role=status] > span');
    const before = await status.evaluate((element) => {
      element.dataset.seen = 'yes'; // replaced by a new element with the next announcement
      return element.textContent;
    });
    await action();
    const fresh = this.page.locator('p[role=status] > span:not([data-seen])');
    const problem = this.page.locator('.notice-problem');
    await fresh.or(problem).first().waitFor({ state: 'attached' });
    assert.equal(await problem.count(), 0, `a problem is shown: ${await problem.allTextContents()}`);
    assert.match((await fresh.textContent()) ?? '', pattern, `before: ${before}`);
  }

  async show(filter) {
    await this.page.getByRole('radio', { name: filter }).check();
    await this.loaded();
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

  /** The ids of the keys that signed the tokens used so far, in order of appearance. */
  keyIds() {
    const header = (token) => JSON.parse(Buffer.from(token.split('.')[0], 'base64url').toString());
    return [...new Set(this.calls.filter((call) => call.token).map((call) => header(call.token).kid))];
  }

  count(status) {
    return this.calls.filter((call) => call.status === status).length;
  }
}
