'use client';

import { useEffect, useMemo, useState, useSyncExternalStore } from 'react';
import { messageOf, NOTHING, type Made, type Sync } from '@/lib/sync';
import type { NewTask, Place, Task, TaskChanges, TodoApi } from '@/lib/todo-api';
import { filtersOf, hrefOf, inOrder, matches, type View } from '@/lib/view';

export { messageOf };

const PAGE_SIZE = 20;

/** The tasks of the view, and what can be done with them. Failed calls reject with a `Problem`. `hidden` wait for an undo. */
export function useTasks(api: TodoApi | null, sync: Sync | null, view: View, today: string, hidden: ReadonlySet<string>) {
  const synced = useSyncExternalStore(sync?.subscribe ?? none, sync?.snapshot ?? nothing, nothing);
  const [size, setSize] = useState(PAGE_SIZE);
  const address = hrefOf(view);
  useEffect(() => setSize(PAGE_SIZE), [address]);

  const all = useMemo(() => synced.tasks.filter(({ id }) => !hidden.has(id)), [synced.tasks, hidden]);
  const matching = useMemo(() => inOrder(all.filter((task) => matches(task, view, today)), view.sort), [all, address, today]);
  const tasks = useMemo(() => matching.slice(0, size), [matching, size]);

  /** Moves a task in front of the task that is shown at `to`, or behind it if it comes from above. */
  function move(task: Task, to: number): Promise<Made> {
    const others = tasks.filter((other) => other.id !== task.id);
    const [above, below] = [others[to - 1], others[to]];
    // Until the API has made a key, one that sorts right behind the task above: no key contains a "!".
    const position = above ? `${above.position}!` : '';
    const place: Place = above ? { after: above.id } : { before: below!.id };
    return sync!.move(task, place, position);
  }

  /** Completes the tasks and returns those that could not be completed, with the first problem. */
  async function completeEach(chosen: Task[], completed: boolean) {
    const results = await Promise.allSettled(chosen.map((task) => sync!.change(task, { completed })));
    const failed = chosen.filter((_, at) => results[at]!.status === 'rejected');
    return { failed, error: results.find((result) => result.status === 'rejected')?.reason as unknown };
  }

  /** Shows the next page and returns its tasks. */
  function loadMore(): Task[] {
    setSize(size + PAGE_SIZE);
    return matching.slice(size, size + PAGE_SIZE);
  }

  return {
    list: { ...synced, all, tasks, open: matching.filter(({ completed }) => !completed).length, more: matching.length > size },
    reload: () => sync?.reload(),
    add: (fields: NewTask) => sync!.add(fields),
    /** `seen` is the task when the user began to edit it. */
    edit: (seen: Task, changes: TaskChanges) => {
      if (Object.keys(changes).length === 0) return Promise.resolve<Made>({ task: seen, sent: true });
      return sync!.change(seen, changes as Partial<Task>, true);
    },
    complete: (task: Task, completed: boolean) => sync!.change(task, { completed }),
    completeEach,
    /** All open tasks of the view, in one request. */
    completeAll: () => api!.completeAll(filtersOf(view, today)),
    move,
    loadMore,
  };
}

const none = () => () => {};
const nothing = () => NOTHING;
