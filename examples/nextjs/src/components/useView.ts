'use client';

import { useCallback, useEffect, useState } from 'react';
import { hrefOf, parseView, type View } from '@/lib/view';

/** The view, kept in the address: a reload shows it again, and the back button goes to the place before. */
export function useView(initial: View) {
  const [view, setView] = useState(initial);

  useEffect(() => {
    const onBack = () => setView(parseView(new URLSearchParams(window.location.search)));
    window.addEventListener('popstate', onBack);
    return () => window.removeEventListener('popstate', onBack);
  }, []);

  const refine = useCallback((change: Partial<View>) => {
    setView((old) => ({ ...old, ...change }));
  }, []);

  const goTo = useCallback((place: View) => {
    window.history.pushState(null, '', hrefOf(place));
    setView(place);
  }, []);

  // Filters and the order change the address of the place that is shown.
  useEffect(() => {
    const href = hrefOf(view);
    if (href !== window.location.pathname + window.location.search) window.history.replaceState(null, '', href);
  }, [view]);

  return { view, refine, goTo };
}
