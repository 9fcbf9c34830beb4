import { jwtClient } from 'better-auth/client/plugins';
import { createAuthClient } from 'better-auth/react';

/** Better Auth in the browser; it lives on this page's own origin. */
export const authClient = createAuthClient({ plugins: [jwtClient()] });

/** Why the sign-in page is shown; it has a sentence for each. */
export type Reason = 'session-ended' | 'signed-out';

/** Leaves for the sign-in page. A real navigation, so that nothing of this user stays in memory. */
export function leave(reason: Reason): void {
  window.location.replace(`/sign-in?why=${reason}`);
}
