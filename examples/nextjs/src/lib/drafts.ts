/**
 * What the user typed and did not yet save: per task being edited, and under `new`. Kept in memory, and handed over to the
 * next page of the same user in this tab when the page goes away (a reload, a session that ended).
 */
export type Draft = { title: string; description: string };

const KEY = 'todo.drafts';
const drafts = new Map<string, Draft>();
let owner: string | null = null;

export function startDrafts(userId: string): () => void {
  owner = userId;
  drafts.clear();
  const saved = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  if (saved !== null) {
    const { owner: savedOwner, entries } = JSON.parse(saved) as { owner: string; entries: [string, Draft][] };
    if (savedOwner === userId) for (const [key, draft] of entries) drafts.set(key, draft);
  }
  window.addEventListener('pagehide', handOver);
  return () => window.removeEventListener('pagehide', handOver);
}

function handOver() {
  if (drafts.size > 0) sessionStorage.setItem(KEY, JSON.stringify({ owner, entries: [...drafts] }));
}

export const getDraft = (key: string) => drafts.get(key);

export function keepDraft(key: string, draft: Draft): void {
  drafts.set(key, draft);
}

export function dropDraft(key: string): void {
  drafts.delete(key);
}

/** At sign-out: nothing stays behind for the next user of this browser. */
export function dropAllDrafts(): void {
  drafts.clear();
}
