'use client';

import { useCallback, useEffect, useRef, useState } from 'react';
import { Problem, type Filter, type Task, type TaskFields, type TodoApi } from '@/lib/todo-api';

export type List = {
  tasks: Task[];
  next: URL | null;
  state: 'loading' | 'ready' | 'failed';
  problem: string | null;
};

/** For how a failed call is told to the user. */
export const messageOf = (error: unknown) => (error instanceof Problem ? error.message : 'Something went wrong on this page.');

const matches = (task: Task, filter: Filter) => filter === 'all' || task.completed === (filter === 'done');

/** The list under the current filter, and what can be done with it. Failed calls reject with a `Problem`. */
export function useTasks(api: TodoApi | null, filter: Filter) {
  const [list, setList] = useState<List>({ tasks: [], next: null, state: 'loading', problem: null });
  const [round, setRound] = useState(0);
  const reload = useCallback(() => setRound((n) => n + 1), []);

  const update = (change: (tasks: Task[]) => Task[]) => setList((old) => ({ ...old, tasks: change(old.tasks) }));
  const show = (id: string, completed: boolean) =>
    update((tasks) => tasks.map((old) => (old.id === id ? { ...old, completed } : old)));
  const put = (task: Task) => update((tasks) => tasks.map((old) => (old.id === task.id ? task : old)));

  useEffect(() => {
    if (!api) return;
    const abort = new AbortController();
    setList((old) => ({ ...old, state: 'loading', problem: null }));
    api
      .list(filter, abort.signal)
      .then((page) => setList({ ...page, state: 'ready', problem: null }))
      .catch((error: unknown) => {
        if (abort.signal.aborted) return;
        setList({ tasks: [], next: null, state: 'failed', problem: messageOf(error) });
      });
    return () => abort.abort();
  }, [api, filter, round]);

  // Switched on and off quickly, a task's calls go out one after the other, and only the last answer counts.
  const switching = useRef(new Map<string, Promise<Task>>());

  async function complete(task: Task, completed: boolean): Promise<Task> {
    const earlier: Promise<unknown> = switching.current.get(task.id) ?? Promise.resolve();
    const mine = earlier.catch(() => {}).then(() => api!.complete(task.id, completed));
    switching.current.set(task.id, mine);
    show(task.id, completed);
    try {
      const answer = await mine;
      if (switching.current.get(task.id) === mine) {
        if (matches(answer, filter)) put(answer);
        else update((tasks) => tasks.filter((old) => old.id !== task.id));
      }
      return answer;
    } catch (error) {
      if (switching.current.get(task.id) === mine) show(task.id, !completed);
      throw error;
    } finally {
      if (switching.current.get(task.id) === mine) switching.current.delete(task.id);
    }
  }

  async function add(fields: TaskFields): Promise<Task> {
    try {
      const task = await api!.add(fields);
      if (matches(task, filter)) update((tasks) => [task, ...tasks]);
      return task;
    } catch (error) {
      if (error instanceof Problem && (error.code === 'timeout' || error.code === 'no_answer')) {
        reload();
        throw new Problem(`${error.message} The task may have been added all the same: please look at the list first.`, error.code);
      }
      throw error;
    }
  }

  async function edit(task: Task, fields: TaskFields): Promise<Task> {
    // Only what was changed here, so that a change made elsewhere survives.
    const changes: Partial<TaskFields> = {};
    if (fields.title !== task.title) changes.title = fields.title;
    if (fields.description !== task.description) changes.description = fields.description;
    if (Object.keys(changes).length === 0) return task;
    const answer = await api!.edit(task.id, changes);
    put(answer);
    return answer;
  }

  async function remove(task: Task): Promise<void> {
    await api!.remove(task.id);
    update((tasks) => tasks.filter((old) => old.id !== task.id));
  }

  /** Appends the next page and answers its tasks. */
  async function loadMore(): Promise<Task[]> {
    if (!list.next) return [];
    const page = await api!.more(list.next);
    const known = new Set(list.tasks.map((task) => task.id));
    const fresh = page.tasks.filter((task) => !known.has(task.id));
    setList((old) => (old.next === list.next ? { ...old, tasks: [...old.tasks, ...fresh], next: page.next } : old));
    return fresh;
  }

  return { list, reload, complete, add, edit, remove, loadMore };
}
