import { authClient } from './auth-client';

/** The sign-in service did not give us a token although the session may be fine. */
export class TokenUnavailable extends Error {}

/** There is no session any more, or it is another user's. */
export class SessionEnded extends Error {}

/**
 * Holds the token for the API. In memory only: what a script cannot find in storage, it cannot take from there.
 * However many callers ask at once, one request is made.
 */
export function createTokenSource(userId: string) {
  let token: string | null = null;
  let pending: Promise<string> | null = null;

  async function request(): Promise<string> {
    const { data, error } = await authClient.token({ fetchOptions: { cache: 'no-store' } }).catch(() => {
      throw new TokenUnavailable('The sign-in service cannot be reached.');
    });
    if (error?.status === 401) throw new SessionEnded();
    if (error || !data) throw new TokenUnavailable('The sign-in service has a problem.');
    // Somebody may have signed in as another user in another tab. This page shows the first one's tasks.
    if (claims(data.token).sub !== userId) throw new SessionEnded();
    return data.token;
  }

  function renew(): Promise<string> {
    pending ??= request()
      .then((fresh) => (token = fresh))
      .finally(() => (pending = null));
    return pending;
  }

  return {
    get: (): Promise<string> => (token === null ? renew() : Promise.resolve(token)),
    current: () => token,
    async renewIfItEndsWithin(ms: number): Promise<void> {
      const ends = token === null ? 0 : Number(claims(token).exp) * 1000;
      if (ends < Date.now() + ms) await renew();
    },
    /** Drops `used`, unless it has been replaced already. */
    forget(used: string): void {
      if (token === used) token = null;
    },
  };
}

/** The claims of a token, unverified: verifying is the API's business. */
function claims(token: string): { sub?: unknown; exp?: unknown } {
  const payload = token.split('.')[1] ?? '';
  const bytes = Uint8Array.from(atob(payload.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes)) as { sub?: unknown; exp?: unknown };
}
