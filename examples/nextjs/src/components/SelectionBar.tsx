'use client';

import { useRef, useState } from 'react';
import type { Task } from '@/lib/todo-api';

type Props = {
  tasks: Task[];
  selected: Task[];
  onSelectAll: () => void;
  onClear: () => void;
  onComplete: (completed: boolean) => Promise<void>;
  onRemove: () => void;
  /** How many open tasks the view has, also those that are not shown. */
  countOpen: () => Promise<number | null>;
  onCompleteAll: () => Promise<void>;
  onEnd: () => void;
};

/**
 * What is done with the chosen tasks. Only what the user sees can be deleted. Completing everything in the view also means tasks that
 * are not shown, so the question says how many there are.
 */
export function SelectionBar({ tasks, selected, onSelectAll, onClear, onComplete, onRemove, countOpen, onCompleteAll, onEnd }: Props) {
  const [busy, setBusy] = useState(false);
  const [question, setQuestion] = useState<number | null>(null);
  const wasAsked = useRef(false);
  const none = selected.length === 0;
  const reopens = !none && selected.every(({ completed }) => completed);

  async function during(work: () => Promise<void>) {
    if (busy) return;
    setBusy(true);
    await work().finally(() => setBusy(false));
  }

  if (question !== null) {
    return (
      <div className="sheet selection" role="group" aria-label="Complete all tasks">
        <p>{question === 1 ? 'Complete the one open task here?' : `Complete all ${question} open tasks here?`}</p>
        <button type="button" className="quiet" autoFocus onClick={() => setQuestion(null)}>
          Cancel
        </button>
        <button type="button" className="primary" aria-disabled={busy} onClick={() => during(onCompleteAll)}>
          {busy ? 'Completing…' : 'Complete all'}
        </button>
      </div>
    );
  }

  return (
    <div
      className="sheet selection"
      role="group"
      aria-label="Selected tasks"
      onKeyDown={(event) => {
        if (event.key === 'Escape') onEnd();
      }}
    >
      <p>{none ? 'None selected' : `${selected.length} selected`}</p>
      {selected.length < tasks.length ? (
        <button type="button" className="text-button" onClick={onSelectAll}>
          Select all {tasks.length} shown
        </button>
      ) : (
        !none && (
          <button type="button" className="text-button" onClick={onClear}>
            Select none
          </button>
        )
      )}
      <span className="selection-actions">
        {none ? (
          <button
            type="button"
            className="quiet"
            aria-disabled={busy}
            autoFocus={wasAsked.current}
            onClick={() =>
              during(async () => {
                wasAsked.current = true;
                setQuestion(await countOpen());
              })
            }
          >
            Complete all…
          </button>
        ) : (
          <>
            <button type="button" className="primary" aria-disabled={busy} onClick={() => during(() => onComplete(!reopens))}>
              {busy ? 'Saving…' : reopens ? 'Reopen' : 'Complete'}
            </button>
            <button type="button" className="danger" aria-disabled={busy} onClick={() => busy || onRemove()}>
              Delete
            </button>
          </>
        )}
        <button type="button" className="quiet" onClick={onEnd}>
          Close
        </button>
      </span>
    </div>
  );
}
