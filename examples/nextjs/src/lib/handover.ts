/** Hands something over to the next page of the same user in this tab: a reload, or a session that ended. */
export function handOver(key: string, owner: string, value: unknown): void {
  sessionStorage.setItem(key, JSON.stringify({ owner, value }));
}

/** Takes what the page before has left. It is gone then; what another user has left is never returned. */
export function takeOver<T>(key: string, owner: string): T | null {
  const saved = sessionStorage.getItem(key);
  sessionStorage.removeItem(key);
  if (saved === null) return null;
  const left = JSON.parse(saved) as { owner: string; value: T };
  return left.owner === owner ? left.value : null;
}
