'use client';

import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { atMost } from '@/lib/at-most';
import { Problem, type NewTask, type Place, type Task, type TaskChanges, type TodoApi } from '@/lib/todo-api';
import { filtersOf, inOrder, matches, type View } from '@/lib/view';

/** For how a failed call is told to the user. */
export const messageOf = (error: unknown) => (error instanceof Problem ? error.message : 'Something went wrong on this page.');

type List = {
  /** As the API has returned them. */
  tasks: Task[];
  next: URL | null;
  state: 'loading' | 'ready' | 'failed';
  problem: string | null;
};

/** What the user did and the API has not confirmed yet. It is shown at once, and gone when the call has failed. */
type Unconfirmed = { id: string; change: Partial<Pick<Task, 'completed' | 'position'>> };

/** The tasks of the view, and what can be done with them. Failed calls reject with a `Problem`. `hidden` are deleted, or will be. */
export function useTasks(api: TodoApi | null, view: View, today: string, hidden: ReadonlySet<string>, onChanged: () => void) {
  const [list, setList] = useState<List>({ tasks: [], next: null, state: 'loading', problem: null });
  const [unconfirmed, setUnconfirmed] = useState<Unconfirmed[]>([]);
  const [round, setRound] = useState(0);
  const reload = useCallback(() => setRound((n) => n + 1), []);

  // What a response meets when it arrives.
  const now = useRef({ view, today, unconfirmed });
  now.current = { view, today, unconfirmed };

  const filters = JSON.stringify(filtersOf(view, today));
  useEffect(() => {
    if (!api) return;
    const abort = new AbortController();
    setList((old) => ({ ...old, state: 'loading', problem: null }));
    api
      .list(JSON.parse(filters), view.sort, abort.signal)
      .then((page) => setList({ ...page, state: 'ready', problem: null }))
      .catch((error: unknown) => {
        if (abort.signal.aborted) return;
        setList({ tasks: [], next: null, state: 'failed', problem: messageOf(error) });
      });
    return () => abort.abort();
  }, [api, filters, view.sort, round]);

  const tasks = useMemo(() => {
    const shown = list.tasks.filter((task) => !hidden.has(task.id));
    return inOrder(shown.map((task) => withChanges(task, unconfirmed)), view.sort);
  }, [list.tasks, hidden, unconfirmed, view.sort]);

  /** Puts a task, as the API has returned it, where it belongs now: in its place, or out of the list. */
  function put(task: Task) {
    const belongs = matches(withChanges(task, now.current.unconfirmed), now.current.view, now.current.today);
    setList((old) => {
      const others = old.tasks.filter((other) => other.id !== task.id);
      return { ...old, tasks: belongs ? [...others, task] : others };
    });
    onChanged();
  }

  // Calls that depend on each other go out one after the other: those of a task's checkbox, and all moves.
  const lines = useRef(new Map<string, Promise<unknown>>());

  async function attempt(line: string, id: string, change: Unconfirmed['change'], call: () => Promise<Task>): Promise<Task> {
    const entry = { id, change };
    const earlier = lines.current.get(line) ?? Promise.resolve();
    const mine = earlier.catch(() => {}).then(call);
    lines.current.set(line, mine);
    setUnconfirmed((old) => [...old, entry]);
    try {
      const answer = await mine;
      now.current.unconfirmed = now.current.unconfirmed.filter((other) => other !== entry);
      put(answer);
      return answer;
    } finally {
      setUnconfirmed((old) => old.filter((other) => other !== entry));
      if (lines.current.get(line) === mine) lines.current.delete(line);
    }
  }

  function complete(task: Task, completed: boolean): Promise<Task> {
    return attempt(`complete ${task.id}`, task.id, { completed }, () => api!.complete(task.id, completed));
  }

  /** Moves a task in front of the task that is shown at `to`, or behind it if it comes from above. */
  function move(task: Task, to: number): Promise<Task> {
    const others = tasks.filter((other) => other.id !== task.id);
    const [above, below] = [others[to - 1], others[to]];
    // Until the API has made a key, one that sorts right behind the task above: no key contains a "!".
    const position = above ? `${above.position}!` : '';
    const place: Place = above ? { after: above.id } : { before: below!.id };
    return attempt('moves', task.id, { position }, () => api!.move(task.id, place));
  }

  /** Completes the tasks and returns those that could not be completed, with the first problem. */
  async function completeEach(chosen: Task[], completed: boolean) {
    return atMost(4, chosen, (task) => complete(task, completed));
  }

  async function completeAll(): Promise<number> {
    const changed = await api!.completeAll(filtersOf(view, today));
    reload();
    onChanged();
    return changed;
  }

  async function add(fields: NewTask): Promise<Task> {
    try {
      const task = await api!.add(fields);
      put(task);
      return task;
    } catch (error) {
      if (error instanceof Problem && (error.code === 'timeout' || error.code === 'no_answer')) {
        reload();
        throw new Problem(`${error.message} The task may have been added all the same: please look at the list first.`, error.code);
      }
      throw error;
    }
  }

  async function edit(task: Task, changes: TaskChanges): Promise<Task> {
    if (Object.keys(changes).length === 0) return task;
    const answer = await api!.edit(task.id, changes);
    put(answer);
    return answer;
  }

  /** Appends the next page and returns its tasks. */
  async function loadMore(): Promise<Task[]> {
    if (!list.next) return [];
    const page = await api!.more(list.next);
    const known = new Set(list.tasks.map((task) => task.id));
    const fresh = page.tasks.filter((task) => !known.has(task.id));
    setList((old) => (old.next === list.next ? { ...old, tasks: [...old.tasks, ...fresh], next: page.next } : old));
    return inOrder(fresh.filter((task) => !hidden.has(task.id)), view.sort);
  }

  return { list: { ...list, tasks }, reload, add, edit, complete, completeEach, completeAll, move, loadMore };
}

function withChanges(task: Task, unconfirmed: Unconfirmed[]): Task {
  return unconfirmed.filter(({ id }) => id === task.id).reduce((so_far, { change }) => ({ ...so_far, ...change }), task);
}
