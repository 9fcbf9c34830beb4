'use client';

import { useCallback, useEffect, useMemo, useState } from 'react';
import { whenOf } from '@/lib/due';
import type { Summary, Task, TodoApi } from '@/lib/todo-api';
import { filtersOf, parseView } from '@/lib/view';

/** How many tasks are open, in each place of the sidebar. */
export type Counts = { all: number; today: number; overdue: number; lists: Record<string, number>; tags: Record<string, number> };

const TOGETHER_MS = 250;

/** The counts, without the tasks that are being deleted. They are an extra: while they cannot be loaded, the old ones stay. */
export function useCounts(api: TodoApi | null, today: string, deleting: Task[]) {
  const [loaded, setLoaded] = useState<{ summary: Summary; today: number; overdue: number } | null>(null);
  const [round, setRound] = useState(0);
  // Deleted since the counts were loaded.
  const [gone, setGone] = useState<Task[]>([]);
  const refresh = useCallback((deleted: Task[] = []) => {
    setGone((old) => [...old, ...deleted]);
    setRound((n) => n + 1);
  }, []);

  useEffect(() => {
    if (!api) return;
    const abort = new AbortController();
    const count = (address: string) => api.count(filtersOf(parseView(new URLSearchParams(address)), today), abort.signal);
    // Changes that follow each other closely are counted once.
    const timer = setTimeout(() => {
      Promise.all([api.summary(abort.signal), count('due=today&show=open'), count('due=overdue')])
        .then(([summary, dueToday, overdue]) => {
          setLoaded({ summary, today: dueToday, overdue });
          setGone((old) => old.filter((task) => !gone.includes(task)));
        })
        .catch(() => {});
    }, round === 0 ? 0 : TOGETHER_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [api, today, round]);

  const counts = useMemo(() => (loaded === null ? null : without([...deleting, ...gone], loaded, today)), [loaded, deleting, gone, today]);
  return { counts, refresh };
}

function without(deleting: Task[], { summary, ...due }: { summary: Summary; today: number; overdue: number }, today: string): Counts {
  const open = (entries: Summary['lists'] | Summary['tags']) => Object.fromEntries(entries.map(({ name, open }) => [name, open]));
  const counts: Counts = { ...due, all: summary.open, lists: open(summary.lists), tags: open(summary.tags) };
  const inLists = Object.values(counts.lists).reduce((sum, count) => sum + count, 0);
  counts.lists[''] = summary.open - inLists;
  for (const task of deleting.filter(({ completed }) => !completed)) {
    counts.all -= 1;
    counts.lists[task.list ?? ''] = (counts.lists[task.list ?? ''] ?? 1) - 1;
    for (const tag of task.tags) counts.tags[tag] = (counts.tags[tag] ?? 1) - 1;
    const day = task.due === null ? null : whenOf(task.due).day;
    if (day === today) counts.today -= 1;
    else if (day !== null && day < today) counts.overdue -= 1;
  }
  return counts;
}
