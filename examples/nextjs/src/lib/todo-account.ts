// What becomes of a user's tasks when the account goes: called on the server, by the hooks of Better Auth in auth.ts.

import { todoApi } from './settings';

/** How long the API may take. */
const TIMEOUT_MS = 10_000;

/** Signs a token of this user. */
export type Sign = (userId: string) => Promise<string>;

/** Deletes all tasks of a user whose account was deleted. */
export async function eraseTasks(userId: string, sign: Sign): Promise<void> {
  try {
    await send('DELETE', '/tasks?all=true', await sign(userId));
  } catch (error) {
    // The account is gone, so the user cannot try again.
    console.error(`The tasks of a deleted account are left; run: todo-server user erase ${userId}`, error);
  }
}

/** Moves all tasks of a guest to the account that the guest has signed up for or signed in to. */
export async function moveTasks(guestId: string, userId: string, sign: Sign): Promise<void> {
  if (guestId === userId) return;
  // An error makes the sign-in fail. The guest then still has the tasks, and can try again.
  await send('POST', '/tasks/transfer', await sign(userId), { from_token: await sign(guestId) });
}

async function send(method: string, path: string, token: string, body?: unknown): Promise<void> {
  const response = await fetch(`${todoApi()}${path}`, {
    method,
    headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: 'no-store',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
}
