/**
 * Settings from the environment, read when the server runs.
 *
 * The lookup is by a variable name on purpose: `process.env.NEXT_PUBLIC_X` would be replaced by its value at build time,
 * and one build should serve every deployment.
 */
function read(name: string): string | undefined {
  return process.env[name]?.trim() || undefined;
}

function seconds(name: string): number | undefined {
  const text = read(name);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0) throw new Error(`${name} must be a number of seconds, not "${text}"`);
  return value;
}

/** Where this app is reached; its origin is also issuer and audience of the tokens. */
export const baseUrl = () => read('BETTER_AUTH_URL') ?? `http://localhost:${read('PORT') ?? '3000'}`;

/** Base URL of the todo API, as seen from the browser. */
export const todoApi = () => (read('NEXT_PUBLIC_TODO_API') ?? 'http://127.0.0.1:8000/api').replace(/\/+$/, '');

/** Signs the session cookies; this app's alone, the API never gets it. */
export const authSecret = () => read('BETTER_AUTH_SECRET');

/** The SQLite file with accounts, sessions and signing keys. */
export const authDatabase = () => read('AUTH_DATABASE') ?? 'data/auth.sqlite';

/** How long a token is good for, such as `15m` or `5s`. */
export const jwtLifetime = () => read('TODO_JWT_LIFETIME') ?? '15m';

/** After how many seconds a new signing key is made; never if unset. */
export const keyRotationInterval = () => seconds('TODO_KEY_ROTATION');

/** For how many seconds an old key stays published. */
export const keyGracePeriod = () => seconds('TODO_KEY_GRACE');
