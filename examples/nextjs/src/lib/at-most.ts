/** Calls `call` for each item, at most `count` at a time. Returns the items for which it failed, and the first error. */
export async function atMost<T>(count: number, items: T[], call: (item: T) => Promise<unknown>): Promise<{ failed: T[]; error: unknown }> {
  const waiting = [...items];
  const failed: T[] = [];
  let first: unknown = null;
  async function work() {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) {
      try {
        await call(item);
      } catch (error) {
        if (failed.length === 0) first = error;
        failed.push(item);
      }
    }
  }
  await Promise.all(Array.from({ length: count }, work));
  return { failed, error: first };
}
