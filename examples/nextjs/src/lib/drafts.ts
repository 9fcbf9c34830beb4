import type { FormFields } from './fields';
import { handOver, takeOver } from './handover';

/**
 * The fields that the user changed and did not yet save: per task being edited, and under `new`. Kept in memory, and handed over
 * to the next page of the same user in this tab when the page goes away (a reload, a session that ended).
 */
export type Draft = Partial<FormFields>;

const KEY = 'todo.drafts';
const drafts = new Map<string, Draft>();

export function startDrafts(userId: string): () => void {
  drafts.clear();
  for (const [key, draft] of takeOver<[string, Draft][]>(KEY, userId) ?? []) drafts.set(key, draft);
  const onLeave = () => {
    if (drafts.size > 0) handOver(KEY, userId, [...drafts]);
  };
  window.addEventListener('pagehide', onLeave);
  return () => window.removeEventListener('pagehide', onLeave);
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
