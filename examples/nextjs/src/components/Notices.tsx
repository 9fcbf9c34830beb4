'use client';

import { useEffect, useState } from 'react';
import { Cross, Undo } from './icons';
import { ofTasks, type Deletion } from './useDeletes';

const UNDO_MS = 6_000;

type Props = {
  /** The service is busy: for so many seconds. */
  wait: number | null;
  connected: boolean;
  /** How many changes are not sent. */
  unsent: number;
  problem: string | null;
  onDismiss: () => void;
  deletions: Deletion[];
  onUndo: (key: number) => void;
  onUndoEnds: (key: number) => void;
};

/** What needs saying wherever the page is scrolled to. */
export function Notices({ wait, connected, unsent, problem, onDismiss, deletions, onUndo, onUndoEnds }: Props) {
  return (
    <section className="notices" aria-label="Notices">
      <div role="status">
        {(!connected || unsent > 0) && (
          <p className="notice notice-unsent">
            {connected ? '' : 'Not connected. What you change is kept on this page, and sent later. '}
            {unsent > 0 && (unsent === 1 ? 'One change is not sent yet.' : `${unsent} changes are not sent yet.`)}
          </p>
        )}
      </div>
      <div role="status">{wait !== null && <p className="notice">The task service is busy. Trying again in {wait === 1 ? 'a second' : `${wait} seconds`}…</p>}</div>
      <div role="alert">
        {problem && (
          <div className="notice notice-problem">
            <p>{problem}</p>
            <button type="button" className="icon" aria-label="Dismiss" onClick={onDismiss}>
              <Cross />
            </button>
          </div>
        )}
      </div>
      {deletions.map((deletion) => (
        <UndoNotice key={deletion.key} deletion={deletion} onUndo={() => onUndo(deletion.key)} onEnd={() => onUndoEnds(deletion.key)} />
      ))}
    </section>
  );
}

/** Stays for six seconds, and longer while the pointer or the focus is on it. */
function UndoNotice({ deletion, onUndo, onEnd }: { deletion: Deletion; onUndo: () => void; onEnd: () => void }) {
  const [held, setHeld] = useState(false);
  const [first] = deletion.tasks;
  const what = deletion.tasks.length === 1 ? `“${first!.title}”` : ofTasks(deletion.tasks.length);

  useEffect(() => {
    if (held) return;
    const timer = setTimeout(onEnd, UNDO_MS);
    return () => clearTimeout(timer);
    // `onEnd` is new with each rendering, and always the same deletion's.
  }, [held]);

  return (
    <div
      className="notice notice-undo"
      data-held={held}
      onPointerEnter={() => setHeld(true)}
      onPointerLeave={(event) => setHeld(event.currentTarget.contains(document.activeElement))}
      onFocus={() => setHeld(true)}
      onBlur={() => setHeld(false)}
    >
      <p>
        <span className="notice-what">{what}</span> deleted
      </p>
      <button type="button" onClick={onUndo}>
        <Undo />
        Undo
        <span className="visually-hidden"> the deletion of {what}</span>
      </button>
      <span className="notice-time" />
    </div>
  );
}
