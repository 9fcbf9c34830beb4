'use client';

import { useEffect, useState } from 'react';
import { authClient, leave } from '@/lib/auth-client';
import { dropAllDrafts } from '@/lib/drafts';

const CHANNEL = 'todo.session';

/** Signs out, in every tab. `beforehand` returns whether the page may be left. */
export function useSession(beforehand: () => Promise<boolean>, onProblem: (message: string | null) => void) {
  const [signingOut, setSigningOut] = useState(false);

  // Signed out in another tab, or brought back by the back button: the session may be over.
  useEffect(() => {
    const channel = new BroadcastChannel(CHANNEL);
    channel.onmessage = () => leave('signed-out');
    const onShow = (event: PageTransitionEvent) => event.persisted && window.location.reload();
    window.addEventListener('pageshow', onShow);
    return () => {
      channel.close();
      window.removeEventListener('pageshow', onShow);
    };
  }, []);

  async function signOut() {
    if (signingOut) return;
    setSigningOut(true);
    onProblem(null);
    if (!(await beforehand())) return setSigningOut(false);
    const failed = await authClient.signOut().then(
      ({ error }) => error !== null,
      () => true,
    );
    if (failed) {
      setSigningOut(false);
      onProblem('You are still signed in: the sign-in service cannot be reached. Please try again.');
      return;
    }
    dropAllDrafts();
    new BroadcastChannel(CHANNEL).postMessage('signed-out');
    leave('signed-out');
  }

  return { signingOut, signOut };
}
