'use client';

import { useEffect, useRef, useState } from 'react';
import { getDraft } from '@/lib/drafts';
import type { Task, TaskFields } from '@/lib/todo-api';
import { Bin, Pencil, Tick } from './icons';
import { TaskForm } from './TaskForm';

type Props = {
  task: Task;
  onComplete: (completed: boolean) => void;
  onEdit: (fields: TaskFields) => Promise<void>;
  onRemove: () => Promise<boolean>;
};

type Mode = 'shown' | 'editing' | 'deleting';

/** The id of a task's checkbox, to move the focus there. */
export const checkboxId = (task: Task) => `done-${task.id}`;

export function TaskRow({ task, onComplete, onEdit, onRemove }: Props) {
  const [mode, setMode] = useState<Mode>(() => (getDraft(`edit-${task.id}`) ? 'editing' : 'shown'));
  const before = useRef<Mode>(mode);
  const editButton = useRef<HTMLButtonElement>(null);
  const deleteButton = useRef<HTMLButtonElement>(null);

  // Back from editing or the question: the focus returns to where it came from.
  useEffect(() => {
    if (mode === 'shown' && before.current === 'editing') editButton.current?.focus();
    if (mode === 'shown' && before.current === 'deleting') deleteButton.current?.focus();
    before.current = mode;
  }, [mode]);

  if (mode === 'editing') {
    return (
      <li className="task task-editing">
        <TaskForm
          id={`edit-${task.id}`}
          titleLabel="Title"
          initial={task}
          submitLabel="Save"
          busyLabel="Saving…"
          onSubmit={async (fields) => {
            await onEdit(fields);
            setMode('shown');
          }}
          onCancel={() => setMode('shown')}
        />
      </li>
    );
  }

  return (
    <li className="task" data-done={task.completed} data-asking={mode === 'deleting'}>
      <span className="check">
        <input
          type="checkbox"
          id={checkboxId(task)}
          checked={task.completed}
          aria-describedby={task.description ? `about-${task.id}` : undefined}
          onChange={(event) => onComplete(event.target.checked)}
        />
        <Tick />
      </span>
      <div className="task-text">
        <label htmlFor={checkboxId(task)}>
          <span className="task-title">{task.title}</span>
        </label>
        {task.description && (
          <p id={`about-${task.id}`} className="task-about">
            {task.description}
          </p>
        )}
      </div>
      {mode === 'shown' ? (
        <div className="task-actions">
          <button ref={editButton} type="button" className="icon" aria-label={`Edit “${task.title}”`} onClick={() => setMode('editing')}>
            <Pencil />
          </button>
          <button
            ref={deleteButton}
            type="button"
            className="icon icon-danger"
            aria-label={`Delete “${task.title}”`}
            onClick={() => setMode('deleting')}
          >
            <Bin />
          </button>
        </div>
      ) : (
        <DeleteQuestion title={task.title} onKeep={() => setMode('shown')} onDelete={onRemove} />
      )}
    </li>
  );
}

/**
 * Deleting cannot be undone, so it is asked for twice. The harmless answer has the focus, and lies where the bin was: neither
 * Enter pressed twice nor a double click deletes.
 */
function DeleteQuestion({ title, onKeep, onDelete }: { title: string; onKeep: () => void; onDelete: () => Promise<boolean> }) {
  const keep = useRef<HTMLButtonElement>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => keep.current?.focus(), []);

  async function remove() {
    if (busy) return;
    setBusy(true);
    if (!(await onDelete())) onKeep();
  }

  return (
    <div
      className="question"
      role="group"
      aria-label={`Delete “${title}”?`}
      onKeyDown={(event) => {
        if (event.key === 'Escape' && !busy) onKeep();
      }}
    >
      <span aria-hidden>Delete for good?</span>
      <button type="button" className="danger" aria-disabled={busy} onClick={remove}>
        {busy ? 'Deleting…' : 'Delete'}
      </button>
      <button ref={keep} type="button" className="quiet" onClick={onKeep}>
        Keep
      </button>
    </div>
  );
}
