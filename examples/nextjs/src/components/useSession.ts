'use client';

import { useEffect, useRef, useState } from 'react';
import { authClient, leave } from '@/lib/auth-client';
import { dropAllDrafts } from '@/lib/drafts';

const CHANNEL = 'todo.session';

type Options = {
  /** Returns whether the page may be left. */
  beforehand: () => Promise<boolean>;
  /** The session is over. */
  onEnded: () => void;
  onProblem: (message: string | null) => void;
};

/** Signs out, in every tab. */
export function useSession({ beforehand, onEnded, onProblem }: Options) {
  const [signingOut, setSigningOut] = useState(false);
  const ended = useRef(onEnded);
  ended.current = onEnded;

  // Signed out in another tab, or brought back by the back button: the session may be over.
  useEffect(() => {
    const channel = new BroadcastChannel(CHANNEL);
    channel.onmessage = () => {
      ended.current();
      leave('signed-out');
    };
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
    onEnded();
    new BroadcastChannel(CHANNEL).postMessage('signed-out');
    leave('signed-out');
  }

  return { signingOut, signOut };
}
