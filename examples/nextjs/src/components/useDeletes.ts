'use client';

import { useEffect, useMemo, useRef, useState } from 'react';
import { messageOf, type Sync } from '@/lib/sync';
import type { Task, TodoApi } from '@/lib/todo-api';

/** Tasks that were deleted together, and wait for an undo. */
export type Deletion = { key: number; tasks: Task[] };

type Options = { api: TodoApi | null; sync: Sync | null; onFailed: (message: string) => void };

/**
 * Deletes with an undo. The tasks are hidden at once, and the deletion becomes an edit when the time for an undo has passed or when the
 * page is left.
 */
export function useDeletes({ api, sync, onFailed }: Options) {
  const [waiting, setWaiting] = useState<Deletion[]>([]);
  const lastKey = useRef(0);
  const now = useRef(waiting);

  /** At once, so that an undo and the end of its time cannot both take the same deletion. */
  function change(how: (old: Deletion[]) => Deletion[]) {
    now.current = how(now.current);
    setWaiting(now.current);
  }

  useEffect(() => {
    const onLeave = () => sync?.leave(now.current.flatMap(({ tasks }) => tasks));
    window.addEventListener('pagehide', onLeave);
    return () => window.removeEventListener('pagehide', onLeave);
  }, [sync]);

  function start(tasks: Task[]) {
    lastKey.current += 1;
    const key = lastKey.current;
    change((old) => [...old, { key, tasks }]);
    api?.prepareToLeave();
  }

  /** Brings the tasks back, by default those that were deleted last, and returns them. */
  function undo(key?: number): Task[] {
    const deletion = key === undefined ? now.current.at(-1) : now.current.find((other) => other.key === key);
    change((old) => old.filter((other) => other !== deletion));
    return deletion?.tasks ?? [];
  }

  /** Deletes for good. */
  async function finish(key: number): Promise<void> {
    const deletion = now.current.find((other) => other.key === key);
    if (!deletion) return;
    const calls = deletion.tasks.map((task) => sync!.remove(task));
    change((old) => old.filter((other) => other !== deletion));
    const results = await Promise.allSettled(calls);
    const failed = deletion.tasks.filter((_, at) => results[at]!.status === 'rejected');
    const [first] = failed;
    if (!first) return;
    const subject = failed.length === 1 ? `“${first.title}” was` : `${ofTasks(failed.length)} were`;
    onFailed(`${subject} not deleted. ${messageOf(results.find((result) => result.status === 'rejected')?.reason)}`);
  }

  const finishAll = async () => void (await Promise.all(now.current.map(({ key }) => finish(key))));

  const hidden = useMemo(() => new Set(waiting.flatMap(({ tasks }) => tasks.map(({ id }) => id))), [waiting]);
  return { waiting, hidden, start, undo, finish, finishAll };
}

export const ofTasks = (count: number) => (count === 1 ? 'one task' : `${count} tasks`);
