'use client';

import { useCallback, useEffect, useRef, useState } from 'react';
import { authClient, leave } from '@/lib/auth-client';
import { dropAllDrafts, startDrafts } from '@/lib/drafts';
import { createTodoApi, type Filter, type Task, type TodoApi } from '@/lib/todo-api';
import { Cross, Tick, Wordmark } from './icons';
import { TaskForm } from './TaskForm';
import { checkboxId, TaskRow } from './TaskRow';
import { messageOf, useTasks } from './useTasks';

const FILTERS: { value: Filter; label: string }[] = [
  { value: 'all', label: 'All' },
  { value: 'open', label: 'Open' },
  { value: 'done', label: 'Done' },
];

const EMPTY: Record<Filter, { title: string; text: string }> = {
  all: { title: 'A clean page', text: 'Write down the first thing on your mind, above.' },
  open: { title: 'All done', text: 'Nothing is waiting for you.' },
  done: { title: 'Nothing done yet', text: 'What you tick off is kept here.' },
};

const CHANNEL = 'todo.session';

type Props = { user: { id: string; name: string; email: string }; apiUrl: string; initialFilter: Filter };

export function TodoPage({ user, apiUrl, initialFilter }: Props) {
  const [api, setApi] = useState<TodoApi | null>(null);
  const [wait, setWait] = useState<number | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [said, setSaid] = useState({ text: '', count: 0 });
  const [filter, setFilter] = useState(initialFilter);
  const [loadingMore, setLoadingMore] = useState(false);
  const [signingOut, setSigningOut] = useState(false);
  const { list, reload, complete, add, edit, remove, loadMore } = useTasks(api, filter);

  /** For screen readers: what a sighted user sees happen. */
  const say = useCallback((text: string) => setSaid((old) => ({ text, count: old.count + 1 })), []);

  useEffect(() => {
    const stopDrafts = startDrafts(user.id);
    setApi(createTodoApi({ baseUrl: apiUrl, userId: user.id, onWait: setWait, onSessionEnded: () => leave('session-ended') }));
    return stopDrafts;
  }, [apiUrl, user.id]);

  // Signed out in another tab, or brought back by the back button: the session may be over.
  useEffect(() => {
    const channel = new BroadcastChannel(CHANNEL);
    channel.onmessage = () => leave('signed-out');
    const onShow = (event: PageTransitionEvent) => event.persisted && window.location.reload();
    window.addEventListener('pageshow', onShow);
    return () => {
      channel.close();
      window.removeEventListener('pageshow', onShow);
    };
  }, []);

  // Where the focus goes once the list has changed: on to the neighbour of a row that left, or to the first new row.
  const focusNext = useRef<{ id: string; onlyIfLost: boolean } | null>(null);
  useEffect(() => {
    if (focusNext.current === null) return;
    const { id, onlyIfLost } = focusNext.current;
    if (!onlyIfLost || document.activeElement === document.body) document.getElementById(id)?.focus();
    focusNext.current = null;
  }, [list.tasks]);

  function neighbour(task: Task) {
    const at = list.tasks.findIndex((other) => other.id === task.id);
    const next = list.tasks[at + 1] ?? list.tasks[at - 1];
    return { id: next ? checkboxId(next) : 'new-title', onlyIfLost: true };
  }

  async function onComplete(task: Task, completed: boolean) {
    setProblem(null);
    const next = neighbour(task);
    try {
      const answer = await complete(task, completed);
      const leaves = filter !== 'all' && answer.completed !== (filter === 'done');
      if (leaves) focusNext.current = next;
      say(`“${answer.title}” is ${answer.completed ? 'done' : 'open again'}.`);
    } catch (error) {
      setProblem(`“${task.title}” was not changed. ${messageOf(error)}`);
    }
  }

  async function onRemove(task: Task): Promise<boolean> {
    setProblem(null);
    focusNext.current = neighbour(task);
    try {
      await remove(task);
      say(`“${task.title}” is deleted.`);
      return true;
    } catch (error) {
      focusNext.current = null;
      setProblem(`“${task.title}” was not deleted. ${messageOf(error)}`);
      return false;
    }
  }

  async function onLoadMore() {
    if (loadingMore) return;
    setLoadingMore(true);
    setProblem(null);
    try {
      const fresh = await loadMore();
      if (fresh[0]) focusNext.current = { id: checkboxId(fresh[0]), onlyIfLost: false };
      say(fresh.length === 1 ? 'One more task.' : `${fresh.length} more tasks.`);
    } catch (error) {
      setProblem(messageOf(error));
    } finally {
      setLoadingMore(false);
    }
  }

  function onFilter(value: Filter) {
    setProblem(null);
    setFilter(value);
    window.history.replaceState(null, '', value === 'all' ? '/' : `/?show=${value}`);
  }

  async function onSignOut() {
    if (signingOut) return;
    setSigningOut(true);
    setProblem(null);
    const failed = await authClient.signOut().then(
      ({ error }) => error !== null,
      () => true,
    );
    if (failed) {
      setSigningOut(false);
      setProblem('You are still signed in: the sign-in service cannot be reached. Please try again.');
      return;
    }
    dropAllDrafts();
    new BroadcastChannel(CHANNEL).postMessage('signed-out');
    leave('signed-out');
  }

  const nothing = list.state === 'ready' && list.tasks.length === 0;
  const first = list.state === 'loading' && list.tasks.length === 0;

  return (
    <>
      <header className="top">
        <Wordmark />
        <div className="who">
          <span title={user.email}>{user.name || user.email}</span>
          <button type="button" className="quiet" aria-disabled={signingOut} onClick={onSignOut}>
            {signingOut ? 'Signing out…' : 'Sign out'}
          </button>
        </div>
      </header>

      <main className="page">
        <h1 className="visually-hidden">Your tasks</h1>

        <section className="sheet composer" aria-label="Write a task">
          <TaskForm
            key={api ? 'ready' : 'starting'}
            id="new"
            titleLabel="New task"
            submitLabel="Add task"
            busyLabel="Adding…"
            onSubmit={async (fields) => {
              const task = await add(fields);
              say(`“${task.title}” is added.`);
            }}
          />
        </section>

        <section aria-labelledby="list-heading">
          <div className="list-head">
            <h2 id="list-heading">Tasks</h2>
            <fieldset className="filter">
              <legend className="visually-hidden">Show</legend>
              {FILTERS.map(({ value, label }) => (
                <label key={value}>
                  <input type="radio" name="filter" value={value} checked={filter === value} onChange={() => onFilter(value)} />
                  <span>{label}</span>
                </label>
              ))}
            </fieldset>
          </div>

          {list.state === 'failed' ? (
            <div className="sheet message" role="alert">
              <h3>Your tasks could not be loaded</h3>
              <p>{list.problem}</p>
              <button type="button" className="primary" onClick={reload}>
                Try again
              </button>
            </div>
          ) : nothing ? (
            <div className="message">
              <span className="empty-art">
                <Tick />
              </span>
              <h3>{EMPTY[filter].title}</h3>
              <p>{EMPTY[filter].text}</p>
            </div>
          ) : first ? (
            <div className="sheet skeleton">
              <p className="visually-hidden">Loading your tasks…</p>
              <span />
              <span />
              <span />
            </div>
          ) : (
            <ul className="sheet tasks" role="list" aria-labelledby="list-heading" aria-busy={list.state === 'loading'}>
              {list.tasks.map((task) => (
                <TaskRow
                  key={task.id}
                  task={task}
                  onComplete={(completed) => void onComplete(task, completed)}
                  onEdit={async (fields) => {
                    const answer = await edit(task, fields);
                    say(`“${answer.title}” is saved.`);
                  }}
                  onRemove={() => onRemove(task)}
                />
              ))}
            </ul>
          )}

          {list.next && list.state !== 'failed' && (
            <button type="button" className="more" aria-disabled={loadingMore} onClick={onLoadMore}>
              {loadingMore ? 'Loading…' : 'Load more'}
            </button>
          )}
        </section>
      </main>

      <p className="visually-hidden" role="status">
        <span key={said.count}>{said.text}</span>
      </p>
      <div className="notices">
        <div role="status">{wait !== null && <p className="notice">The task service is busy. Trying again in {wait === 1 ? 'a second' : `${wait} seconds`}…</p>}</div>
        <div role="alert">
          {problem && (
            <div className="notice notice-problem">
              <p>{problem}</p>
              <button type="button" className="icon" aria-label="Dismiss" onClick={() => setProblem(null)}>
                <Cross />
              </button>
            </div>
          )}
        </div>
      </div>
    </>
  );
}
