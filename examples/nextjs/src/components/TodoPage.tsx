'use client';

import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { leave } from '@/lib/auth-client';
import { countsOf } from '@/lib/counts';
import { startDrafts } from '@/lib/drafts';
import { dayOf } from '@/lib/due';
import { changesOf, fieldsOf, newTaskOf } from '@/lib/fields';
import { createSync, type Sync } from '@/lib/sync';
import { createTodoApi, type Task, type TodoApi } from '@/lib/todo-api';
import { defaultsOf, matches, nameOf, type View } from '@/lib/view';
import { ListState } from './ListState';
import { Notices } from './Notices';
import { SelectionBar } from './SelectionBar';
import { Sidebar } from './Sidebar';
import { TaskForm } from './TaskForm';
import { TaskList } from './TaskList';
import { checkboxId, type RowActions } from './TaskRow';
import { Toolbar } from './Toolbar';
import { Wordmark } from './icons';
import { ofTasks, useDeletes } from './useDeletes';
import { useNow } from './useNow';
import { useSelection } from './useSelection';
import { useSession } from './useSession';
import { messageOf, useTasks } from './useTasks';
import { useView } from './useView';

type Props = { user: { id: string; name: string; email: string }; apiUrl: string; initialView: View };

/** Said of an edit that waits for the API. */
const later = (sent: boolean) => (sent ? '' : ' It is not sent yet.');

export function TodoPage({ user, apiUrl, initialView }: Props) {
  const [api, setApi] = useState<TodoApi | null>(null);
  const [sync, setSync] = useState<Sync | null>(null);
  const [wait, setWait] = useState<number | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [said, setSaid] = useState({ text: '', count: 0 });
  const { view, ...address } = useView(initialView);
  const now = useNow();
  const today = dayOf(now);
  const placeName = nameOf(view);

  useEffect(() => {
    const stopDrafts = startDrafts(user.id);
    const onSessionEnded = () => {
      sync.stop();
      leave('session-ended');
    };
    const api = createTodoApi({ baseUrl: apiUrl, userId: user.id, onWait: setWait, onSessionEnded });
    const sync = createSync(api, user.id);
    sync.start();
    setApi(api);
    setSync(sync);
    return () => {
      sync.stop();
      stopDrafts();
    };
  }, [apiUrl, user.id]);

  const deletes = useDeletes({ api, sync, onFailed: setProblem });
  const { list, ...calls } = useTasks(api, sync, view, today, deletes.hidden);
  const isLoaded = list.state === 'ready';
  const counts = useMemo(() => (isLoaded ? countsOf(list.all, today) : null), [isLoaded, list.all, today]);
  const selection = useSelection(list.tasks);
  const wasWarned = useRef(false);
  const { signingOut, signOut } = useSession({
    async beforehand() {
      await deletes.finishAll();
      const unsent = sync?.snapshot().unsent ?? 0;
      if (unsent === 0 || wasWarned.current) return true;
      wasWarned.current = true;
      setProblem(`${unsent === 1 ? 'One change is' : `${unsent} changes are`} not sent yet. Sign out again to discard ${unsent === 1 ? 'it' : 'them'}.`);
      return false;
    },
    onEnded() {
      if (wasWarned.current) sync?.discardAll();
      sync?.stop();
    },
    onProblem: setProblem,
  });

  /** For screen readers: what a sighted user sees happen. */
  const say = useCallback((text: string) => setSaid((old) => ({ text, count: old.count + 1 })), []);

  // Where the focus goes once the list has changed: on to the neighbour of a row that left, or to the first new row.
  const focusNext = useRef<{ id: string; onlyIfLost: boolean } | null>(null);
  useEffect(() => {
    if (focusNext.current === null) return;
    const { id, onlyIfLost } = focusNext.current;
    if (!onlyIfLost || document.activeElement === document.body) document.getElementById(id)?.focus();
    focusNext.current = null;
  }, [list.tasks]);

  function neighbour(leaving: Task[]) {
    const ids = new Set(leaving.map(({ id }) => id));
    const at = list.tasks.findIndex(({ id }) => ids.has(id));
    const stays = (task: Task) => !ids.has(task.id);
    const next = list.tasks.slice(at).find(stays) ?? list.tasks.slice(0, at).findLast(stays);
    return { id: next ? checkboxId(next) : 'new-title', onlyIfLost: true };
  }

  /** The place and the filters change: what was chosen is not what is shown any more. */
  function leavesRows<T>(change: (value: T) => void) {
    return (value: T) => {
      setProblem(null);
      selection.end();
      change(value);
    };
  }
  const goTo = leavesRows(address.goTo);
  const refine = leavesRows(address.refine);

  const rows: RowActions = {
    async onComplete(task, completed) {
      setProblem(null);
      const next = neighbour([task]);
      try {
        // At once: the row leaves the view before the API has answered.
        if (!matches({ ...task, completed }, view, today)) focusNext.current = next;
        const { sent } = await calls.complete(task, completed);
        say(`“${task.title}” is ${completed ? 'done' : 'open again'}.${later(sent)}`);
      } catch (error) {
        setProblem(`“${task.title}” was not changed. ${messageOf(error)}`);
      }
    },
    async onEdit(task, changed, all) {
      const changes = changesOf(changed, all);
      if (!matches({ ...task, ...changes } as Task, view, today)) focusNext.current = neighbour([task]);
      const { task: answer, sent } = await calls.edit(task, changes);
      const belongs = matches(answer, view, today);
      say(`“${answer.title}” is saved.${later(sent)}${belongs ? '' : ' It is not in this view any more.'}`);
    },
    onDecide(task, decision) {
      sync?.[decision](task.id);
      focusNext.current = { id: checkboxId(task), onlyIfLost: true };
      say(decision === 'keepMine' ? `Your version of “${task.title}” is kept.` : `Your change of “${task.title}” is gone.`);
    },
    onRemove: (task) => remove([task]),
    onSelect: selection.select,
  };

  function remove(tasks: Task[]) {
    setProblem(null);
    focusNext.current = neighbour(tasks);
    deletes.start(tasks);
    const what = tasks.length === 1 ? `“${tasks[0]!.title}” is` : `${ofTasks(tasks.length)} are`;
    say(`${what} deleted. Press Control and Z to undo.`);
  }

  /** Returns whether there was something to undo. */
  function undo(key?: number): boolean {
    const tasks = deletes.undo(key);
    const [first] = tasks;
    if (!first) return false;
    focusNext.current = { id: checkboxId(first), onlyIfLost: false };
    say(tasks.length === 1 ? `“${first.title}” is back.` : `${tasks.length} tasks are back.`);
    return true;
  }

  const undoLast = useRef(undo);
  undoLast.current = undo;
  useEffect(() => {
    function onKeyDown(event: KeyboardEvent) {
      const isTyping = (event.target as Element).matches?.('textarea, select, input:not([type=checkbox], [type=radio])');
      if (event.key.toLowerCase() !== 'z' || !(event.ctrlKey || event.metaKey) || event.shiftKey || isTyping) return;
      // The browser would also take back what was last typed, and move the focus there.
      if (undoLast.current()) event.preventDefault();
    }
    window.addEventListener('keydown', onKeyDown);
    return () => window.removeEventListener('keydown', onKeyDown);
  }, []);

  async function onMove(task: Task, to: number) {
    setProblem(null);
    say(`“${task.title}” is at position ${to + 1} of ${list.tasks.length}.`);
    try {
      await calls.move(task, to);
    } catch (error) {
      setProblem(`“${task.title}” was not moved. ${messageOf(error)}`);
    }
  }

  function onLoadMore() {
    const fresh = calls.loadMore();
    if (fresh[0]) focusNext.current = { id: checkboxId(fresh[0]), onlyIfLost: false };
    say(fresh.length === 1 ? 'One more task.' : `${fresh.length} more tasks.`);
  }

  async function onCompleteSelected(completed: boolean) {
    setProblem(null);
    const chosen = selection.selected;
    focusNext.current = neighbour(chosen);
    const { failed, error } = await calls.completeEach(chosen, completed);
    const count = chosen.length - failed.length;
    if (count > 0) say(`${count === 1 ? 'One task is' : `${count} tasks are`} ${completed ? 'done' : 'open again'}.`);
    if (failed.length === 0) return selection.end();
    setProblem(`${failed.length === 1 ? `“${failed[0]!.title}” was` : `${failed.length} tasks were`} not changed. ${messageOf(error)}`);
  }

  async function countOpen(): Promise<number | null> {
    // The API completes what it has, so that it must have everything.
    await deletes.finishAll();
    if (sync!.snapshot().unsent > 0) setProblem('Some changes are not sent yet. Please try again when they are.');
    else if (list.open === 0) say('No task is open here.');
    else return list.open;
    return null;
  }

  async function onCompleteAll() {
    setProblem(null);
    try {
      const count = await calls.completeAll();
      selection.end();
      say(count === 1 ? 'One task is done.' : `${count} tasks are done.`);
    } catch (error) {
      setProblem(`The tasks were not changed. ${messageOf(error)}`);
    }
  }

  const known = {
    lists: Object.keys(counts?.lists ?? {}).filter(Boolean),
    tags: Object.keys(counts?.tags ?? {}),
  };

  return (
    <div className="shell">
      <header className="top">
        <Wordmark />
        <div className="who">
          <span title={user.email}>{user.name || user.email}</span>
          <button type="button" className="quiet" aria-disabled={signingOut} onClick={signOut}>
            {signingOut ? 'Signing out…' : 'Sign out'}
          </button>
        </div>
      </header>

      <Sidebar view={view} counts={counts} placeName={placeName} goTo={goTo} refine={refine} />

      <main className="page">
        <h1 className="visually-hidden">Your tasks</h1>

        <section className="sheet composer" aria-label="Write a task">
          <TaskForm
            key={api ? 'ready' : 'starting'}
            id="new"
            titleLabel={view.list ? `New task in ${view.list}` : view.due === 'today' ? 'New task for today' : 'New task'}
            initial={fieldsOf(defaultsOf(view, today))}
            known={known}
            submitLabel="Add task"
            busyLabel="Adding…"
            onSubmit={async (_, all) => {
              const { task, sent } = await calls.add(newTaskOf(all));
              say(`“${task.title}” is added.${later(sent)}${matches(task, view, today) ? '' : ' It is not in this view.'}`);
            }}
          />
        </section>

        <section aria-labelledby="list-heading">
          <Toolbar
            view={view}
            name={placeName}
            selecting={selection.ids !== null}
            refine={refine}
            onSelecting={(on) => (on ? selection.selectNone() : selection.end())}
          />
          {list.state !== 'ready' || list.tasks.length === 0 ? (
            <ListState list={list} view={view} onRetry={calls.reload} />
          ) : (
            <TaskList
              {...rows}
              tasks={list.tasks}
              marks={list.marks}
              view={view}
              now={now}
              today={today}
              known={known}
              selected={selection.ids}
              onMove={onMove}
              say={say}
            />
          )}

          {isLoaded && list.more && (
            <button type="button" className="more" onClick={onLoadMore}>
              Show more
            </button>
          )}

          {selection.ids !== null && (
            <SelectionBar
              tasks={list.tasks}
              selected={selection.selected}
              onSelectAll={selection.selectAll}
              onClear={selection.selectNone}
              onComplete={onCompleteSelected}
              onRemove={() => {
                remove(selection.selected);
                selection.end();
              }}
              countOpen={countOpen}
              onCompleteAll={onCompleteAll}
              onEnd={selection.end}
            />
          )}
        </section>
      </main>

      <p className="visually-hidden" role="status">
        <span key={said.count}>{said.text}</span>
      </p>
      <Notices
        wait={wait}
        connected={list.connected}
        unsent={list.unsent}
        problem={problem}
        onDismiss={() => setProblem(null)}
        deletions={deletes.waiting}
        onUndo={undo}
        onUndoEnds={(key) => void deletes.finish(key)}
      />
    </div>
  );
}
