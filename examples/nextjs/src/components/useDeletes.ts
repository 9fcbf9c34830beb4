'use client';

import { useEffect, useMemo, useRef, useState } from 'react';
import { atMost } from '@/lib/at-most';
import { handOver, takeOver } from '@/lib/handover';
import type { Task, TodoApi } from '@/lib/todo-api';
import { messageOf } from './useTasks';

/** Tasks that were deleted together. They are `waiting` for an undo, or the API is being told. */
export type Deletion = { key: number; tasks: Task[]; state: 'waiting' | 'sending' };

type Options = {
  api: TodoApi | null;
  userId: string;
  /** Tasks are deleted. Those that an earlier page has left are not among them: only their ids are known. */
  onGone: (tasks: Task[]) => void;
  onFailed: (message: string) => void;
};

const KEY = 'todo.deletions';

/**
 * Deletes with an undo. The tasks are hidden at once, and the API is told when the time for an undo has passed or when the page is
 * left. What may not have reached the API when the page went away is sent again by the next page: deleting twice is deleting once.
 */
export function useDeletes({ api, userId, onGone, onFailed }: Options) {
  const [deletions, setDeletions] = useState<Deletion[]>([]);
  const [left, setLeft] = useState<string[]>([]);
  // Stay hidden: a list that was asked for before the deletion may arrive after it.
  const [gone, setGone] = useState<string[]>([]);
  const lastKey = useRef(0);
  const now = useRef({ deletions, left, onGone, onFailed });
  now.current = { deletions, left, onGone, onFailed };

  /** At once, so that an undo and the end of its time cannot both take the same deletion. */
  function change(how: (old: Deletion[]) => Deletion[]) {
    now.current.deletions = how(now.current.deletions);
    setDeletions(now.current.deletions);
  }

  useEffect(() => {
    if (!api) return;
    const ids = takeOver<string[]>(KEY, userId) ?? [];
    if (ids.length > 0) void removeLeft(api, ids);

    function onLeave() {
      const leaving = [...now.current.left, ...now.current.deletions.flatMap(({ tasks }) => tasks.map(({ id }) => id))];
      if (leaving.length === 0) return;
      handOver(KEY, userId, leaving);
      api!.removeAndLeave(leaving);
    }
    window.addEventListener('pagehide', onLeave);
    return () => window.removeEventListener('pagehide', onLeave);
  }, [api, userId]);

  /** What an earlier page has left. */
  async function removeLeft(api: TodoApi, ids: string[]) {
    setLeft(ids);
    const { failed, error } = await atMost(4, ids, (id) => api.remove(id));
    setGone((old) => [...old, ...ids.filter((id) => !failed.includes(id))]);
    setLeft([]);
    now.current.onGone([]);
    if (failed.length > 0) now.current.onFailed(`Not deleted: ${ofTasks(failed.length)} of an earlier page. ${messageOf(error)}`);
  }

  function start(tasks: Task[]) {
    lastKey.current += 1;
    const key = lastKey.current;
    change((old) => [...old, { key, tasks, state: 'waiting' }]);
    api?.prepareToLeave();
  }

  /** Brings the tasks back, by default those that were deleted last, and returns them. */
  function undo(key?: number): Task[] {
    const waiting = now.current.deletions.filter(({ state }) => state === 'waiting');
    const deletion = key === undefined ? waiting.at(-1) : waiting.find((other) => other.key === key);
    change((old) => old.filter((other) => other !== deletion));
    return deletion?.tasks ?? [];
  }

  /** Deletes for good. Returns whether all tasks are gone. */
  async function finish(key: number): Promise<boolean> {
    const deletion = now.current.deletions.find((other) => other.key === key && other.state === 'waiting');
    if (!deletion) return true;
    change((old) => old.map((other) => (other === deletion ? { ...deletion, state: 'sending' } : other)));
    const { failed, error } = await atMost(4, deletion.tasks, (task) => api!.remove(task.id));
    const deleted = deletion.tasks.filter((task) => !failed.includes(task));
    setGone((old) => [...old, ...deleted.map(({ id }) => id)]);
    now.current.onGone(deleted);
    change((old) => old.filter((other) => other.key !== key));
    const [first] = failed;
    if (first) {
      const subject = failed.length === 1 ? `“${first.title}” was` : `${ofTasks(failed.length)} were`;
      now.current.onFailed(`${subject} not deleted. ${messageOf(error)}`);
    }
    return failed.length === 0;
  }

  const finishAll = async () => (await Promise.all(now.current.deletions.map(({ key }) => finish(key)))).every(Boolean);

  const deleting = useMemo(() => deletions.flatMap(({ tasks }) => tasks), [deletions]);
  const hidden = useMemo(() => new Set([...left, ...gone, ...deleting.map(({ id }) => id)]), [left, gone, deleting]);
  return { waiting: deletions.filter(({ state }) => state === 'waiting'), deleting, hidden, start, undo, finish, finishAll };
}

export const ofTasks = (count: number) => (count === 1 ? 'one task' : `${count} tasks`);
