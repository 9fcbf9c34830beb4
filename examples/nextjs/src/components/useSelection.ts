'use client';

import { useRef, useState } from 'react';
import type { Task } from '@/lib/todo-api';

/** The tasks that are chosen among those that are shown. `ids` is null while the user is not choosing. */
export function useSelection(tasks: Task[]) {
  const [ids, setIds] = useState<ReadonlySet<string> | null>(null);
  const last = useRef<string | null>(null);

  /** With `range` (the Shift key), also the tasks between this one and the one chosen before. */
  function select(task: Task, selected: boolean, range: boolean) {
    const here = tasks.findIndex(({ id }) => id === task.id);
    const before = range ? tasks.findIndex(({ id }) => id === last.current) : here;
    const from = before < 0 ? here : before;
    const chosen = tasks.slice(Math.min(from, here), Math.max(from, here) + 1);
    last.current = task.id;
    setIds((old) => {
      const next = new Set(old);
      for (const { id } of chosen) selected ? next.add(id) : next.delete(id);
      return next;
    });
  }

  return {
    ids,
    selected: tasks.filter(({ id }) => ids?.has(id)),
    select,
    selectAll: () => setIds(new Set(tasks.map(({ id }) => id))),
    selectNone: () => setIds(new Set()),
    end: () => setIds(null),
  };
}
