// Uses the generated types of the API against a running server.

import assert from 'node:assert/strict';
import { generateKeyBetween } from 'fractional-indexing';
import createClient from 'openapi-fetch';
import type { components, paths } from './schema.js';

const setting = (name: string): string => process.env[name] ?? assert.fail(`${name} is not set`);
const headers = (token: string) => ({ Authorization: `Bearer ${token}` });
const client = createClient<paths>({ baseUrl: setting('TODO_URL'), headers: headers(setting('TODO_TOKEN')) });
const guest = createClient<paths>({ baseUrl: setting('TODO_URL'), headers: headers(setting('TODO_GUEST')) });

type Task = components['schemas']['Task'];

const created = await client.POST('/api/v1/tasks', { body: { title: 'Buy milk', description: 'Two bottles' } });
assert.equal(created.response.status, 201);
if (!created.data || Array.isArray(created.data)) assert.fail(created.error?.detail ?? 'an array');
const task: Task = created.data;
assert.deepEqual([task.title, task.description, task.completed, task.version], ['Buy milk', 'Two bottles', false, 1]);

assert.deepEqual((await client.GET('/api/v1/tasks')).data, [task]);
const listed = await client.GET('/api/v1/tasks', { params: { query: { limit: 10, completed: true } } });
assert.deepEqual(listed.data, []);

const path = { params: { path: { id: task.id } } };
const done = await client.PATCH('/api/v1/tasks/{id}/complete', { ...path, body: { completed: true } });
assert.equal(done.data?.completed, true);

// Errors have the type of their status.
const invalid = await client.PATCH('/api/v1/tasks/{id}', { ...path, body: { title: ' ' } });
if (!invalid.error || invalid.error.code !== 'validation_failed') assert.fail('the title is blank');
assert.deepEqual(invalid.error.field_errors, { title: ['must not be blank'] });
const { error, response } = await guest.GET('/api/v1/tasks/{id}', path);
assert.deepEqual([response.status, error?.code], [404, 'task_not_found']);

// Several tasks at once, filters, a sort, and changes of many tasks.
const several = await client.POST('/api/v1/tasks', {
  body: [
    { title: 'Water', due: '2026-12-01T17:00[Europe/Berlin]', priority: 'high', list: 'Home', tags: ['plants'] },
    { title: 'Sow', due: '2026-11-30', list: 'Home' },
  ],
});
if (!Array.isArray(several.data)) assert.fail('no array');
const [water, sow] = several.data;
if (!water || !sow) assert.fail('two tasks');
assert.deepEqual([water.due, water.tags], ['2026-12-01T17:00:00+01:00[Europe/Berlin]', ['plants']]);
const due = await client.GET('/api/v1/tasks', { params: { query: { list: ['Home'], due_before: '2026-12-02', sort: 'due' } } });
assert.deepEqual(due.data?.map((each) => each.title), ['Sow', 'Water']);
const count = await client.GET('/api/v1/tasks/count', { params: { query: { tag: ['plants'], priority: ['high', 'low'] } } });
assert.deepEqual(count.data, { count: 1 });
const home = { params: { query: { list: ['Home'] } } };
const renamed = await client.PATCH('/api/v1/tasks', { ...home, body: { list: 'Garden' } });
assert.deepEqual(renamed.data, { matched: 2, changed: 2 });
const sowPath = { params: { path: { id: sow.id } } };
const movedTask = await client.POST('/api/v1/tasks/{id}/move', { ...sowPath, body: { before: water.id } });
assert.ok(movedTask.data && movedTask.data.position < water.position);
const summary = await client.GET('/api/v1/tasks/summary');
assert.deepEqual(summary.data?.lists, [{ name: 'Garden', open: 2, total: 2 }]);
const garden = await client.DELETE('/api/v1/tasks', { params: { query: { list: ['Garden'] } } });
assert.deepEqual(garden.data, { matched: 2, changed: 2 });

// Keys of the server and of the npm package are of one kind: each continues where the other has been.
const [first, second] = (await client.POST('/api/v1/tasks', { body: [{ title: 'First' }, { title: 'Second' }] })).data as Task[];
assert(first && second);
const between = generateKeyBetween(first.position, second.position);
const third = (await client.POST('/api/v1/tasks', { body: { title: 'Third', position: between } })).data as Task;
assert.equal(third.position, between);
const afterFirst = { params: { path: { id: second.id } }, body: { after: first.id } };
const secondMoved = await client.POST('/api/v1/tasks/{id}/move', afterFirst);
assert.equal(secondMoved.data?.position, generateKeyBetween(first.position, between));
const inOrder = await client.GET('/api/v1/tasks', { params: { query: { sort: 'position', completed: false } } });
assert.deepEqual(inOrder.data?.map((task) => task.title), ['First', 'Second', 'Third']);
const bulk = await client.DELETE('/api/v1/tasks', { params: { query: { completed: false } } });
assert.deepEqual(bulk.data, { matched: 3, changed: 3 });

await guest.POST('/api/v1/tasks', { body: { title: 'Of a guest' } });
const moved = await client.POST('/api/v1/tasks/transfer', { body: { from_token: setting('TODO_GUEST') } });
assert.deepEqual(moved.data, { moved: 1, remaining: 0 });
assert.equal((await client.DELETE('/api/v1/tasks/{id}', path)).response.status, 204);
const erased = await client.DELETE('/api/v1/tasks', { params: { query: { all: true } } });
assert.deepEqual(erased.data, { matched: 1, changed: 1 });
