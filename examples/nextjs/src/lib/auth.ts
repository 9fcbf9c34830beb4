import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { betterAuth, type BetterAuthOptions } from 'better-auth';
import { getMigrations } from 'better-auth/db/migration';
import { anonymous, jwt } from 'better-auth/plugins';
import { SqliteDialect } from 'kysely';
import Database from 'libsql';
import { headers } from 'next/headers';
import * as settings from './settings';
import { eraseTasks, moveTasks } from './todo-account';

function createOptions() {
  const file = settings.authDatabase();
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  const database = new Database(file);
  database.exec('PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON');

  return {
    appName: 'todo',
    baseURL: settings.baseUrl(),
    secret: settings.authSecret(),
    telemetry: { enabled: false },
    database: { dialect: new SqliteDialect({ database }), type: 'sqlite' },
    emailAndPassword: { enabled: true },
    user: { deleteUser: { enabled: true, afterDelete: (user) => eraseTasks(user.id, sign) } },
    plugins: [
      anonymous({ onLinkAccount: ({ anonymousUser, newUser }) => moveTasks(anonymousUser.user.id, newUser.user.id, sign) }),
      jwt({
        jwks: { rotationInterval: settings.keyRotationInterval(), gracePeriod: settings.keyGracePeriod() },
        jwt: {
          expirationTime: settings.jwtLifetime(),
          // Without this, a token contains the whole user, with `image`: as a data URI, that is too long for a header.
          definePayload: ({ user }) => ({ name: user.name, email: user.email }),
        },
      }),
    ],
  } satisfies BetterAuthOptions;
}

const createAuth = () => betterAuth(options());

// One of each per process. Next bundles the start hook, the pages and the routes separately, so plain module constants would
// open the database several times (and during the build, when there is none).
const shared = globalThis as typeof globalThis & {
  __todoOptions?: ReturnType<typeof createOptions>;
  __todoAuth?: ReturnType<typeof createAuth>;
};

const options = () => (shared.__todoOptions ??= createOptions());

export const auth = () => (shared.__todoAuth ??= createAuth());

/** A token of this user for one request of a hook, valid for a minute. Issuer and audience are those of the `jwt` plugin. */
async function sign(userId: string): Promise<string> {
  const now = Math.floor(Date.now() / 1000);
  const { token } = await auth().api.signJWT({ body: { payload: { sub: userId, iat: now, exp: now + 60 } } });
  return token;
}

/** Creates or updates the tables; called once when the server starts, before anything else looks at them. */
export async function migrate() {
  const { runMigrations } = await getMigrations(options());
  await runMigrations();
}

/** The signed-in user of the current request, if any. */
export async function currentUser() {
  const request = await headers();
  const session = await auth().api.getSession({ headers: request });
  return session?.user ?? null;
}
