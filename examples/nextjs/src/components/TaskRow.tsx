'use client';

import { useEffect, useRef, useState, type ComponentProps } from 'react';
import { elsewhere, whenOf, wordsOf } from '@/lib/due';
import { getDraft } from '@/lib/drafts';
import { fieldsOf, type FormFields } from '@/lib/fields';
import type { Mark } from '@/lib/sync';
import type { Task } from '@/lib/todo-api';
import { Bin, Calendar, Flag, Grip, Lines, Pencil, Tick } from './icons';
import { inWords, TaskForm, type Known } from './TaskForm';
import { Unsent, type Decision } from './Unsent';

export type RowActions = {
  onComplete: (task: Task, completed: boolean) => void;
  /** `task` is as it was when the user began to edit it. */
  onEdit: (task: Task, changed: Partial<FormFields>, all: FormFields) => Promise<void>;
  onDecide: (task: Task, decision: Decision) => void;
  onRemove: (task: Task) => void;
  onSelect: (task: Task, selected: boolean, range: boolean) => void;
};

type Props = RowActions & {
  task: Task;
  /** Of an edit that is not confirmed. */
  mark: Mark | undefined;
  now: Date;
  today: string;
  known: Known;
  /** In a list, its name would be on each row. */
  showList: boolean;
  /** Null: not while tasks are being selected. */
  selected: boolean | null;
  /** The handle with which the row is moved, in the manual order. */
  handle?: ComponentProps<'button'>;
  shift: number;
  moving: boolean;
};

/** The id of a task's checkbox, to move the focus there. */
export const checkboxId = (task: Task) => `done-${task.id}`;

export function TaskRow({ task, mark, now, today, known, showList, selected, handle, shift, moving, ...actions }: Props) {
  // The task as the form shows it. What changes elsewhere meanwhile is compared when the user saves.
  const [edited, setEdited] = useState<Task | null>(() => (getDraft(`edit-${task.id}`) === undefined ? null : task));
  const editing = edited !== null;
  const wasEditing = useRef(editing);
  const editButton = useRef<HTMLButtonElement>(null);

  // Back from editing: the focus returns to where it came from.
  useEffect(() => {
    if (!editing && wasEditing.current) editButton.current?.focus();
    wasEditing.current = editing;
  }, [editing]);

  const unsent = mark && (mark.edit.kept || mark.edit.refused || mark.clash) ? mark : null;
  const undecided = unsent && (unsent.edit.refused || unsent.clash);

  if (edited) {
    return (
      <li className="task task-editing">
        <TaskForm
          id={`edit-${task.id}`}
          titleLabel="Title"
          initial={fieldsOf(edited)}
          known={known}
          submitLabel="Save"
          busyLabel="Saving…"
          onSubmit={async (changed, all) => {
            await actions.onEdit(edited, changed, all);
            setEdited(null);
          }}
          onCancel={() => setEdited(null)}
        />
      </li>
    );
  }

  return (
    <li
      className="task"
      data-done={task.completed}
      data-selected={selected ?? undefined}
      data-moving={moving || undefined}
      style={shift === 0 ? undefined : { transform: `translateY(${shift}px)` }}
    >
      {handle && (
        <button type="button" className="icon handle" aria-label={`Move “${task.title}”`} aria-describedby="how-to-move" {...handle}>
          <Grip />
        </button>
      )}
      <span className={selected === null ? 'check' : 'check check-select'} data-priority={task.priority ?? undefined}>
        {selected === null ? (
          <input
            type="checkbox"
            id={checkboxId(task)}
            checked={task.completed}
            aria-describedby={`about-${task.id}`}
            onChange={(event) => actions.onComplete(task, event.target.checked)}
          />
        ) : (
          <input
            type="checkbox"
            id={checkboxId(task)}
            checked={selected}
            aria-label={`Select “${task.title}”`}
            aria-describedby={`about-${task.id}`}
            onChange={(event) => actions.onSelect(task, event.target.checked, (event.nativeEvent as MouseEvent).shiftKey)}
          />
        )}
        <Tick />
      </span>
      <div className="task-text">
        <label htmlFor={checkboxId(task)}>
          <span className="task-title">{task.title}</span>
        </label>
        <div id={`about-${task.id}`}>
          {task.description && <p className="task-about">{task.description}</p>}
          <Facts task={task} now={now} today={today} showList={showList} />
          {unsent && !undecided && <Unsent task={task} mark={unsent} today={today} onDecide={actions.onDecide} />}
        </div>
        {undecided && <Unsent task={task} mark={unsent} today={today} onDecide={actions.onDecide} />}
      </div>
      {selected === null && !undecided && (
        <div className="task-actions">
          <button ref={editButton} type="button" className="icon" aria-label={`Edit “${task.title}”`} onClick={() => setEdited(task)}>
            <Pencil />
          </button>
          <button type="button" className="icon icon-danger" aria-label={`Delete “${task.title}”`} onClick={() => actions.onRemove(task)}>
            <Bin />
          </button>
        </div>
      )}
    </li>
  );
}

/** When it is due, how urgent it is, and where it belongs. */
function Facts({ task, now, today, showList }: { task: Task; now: Date; today: string; showList: boolean }) {
  const list = showList ? task.list : null;
  if (task.due === null && task.priority === null && list === null && task.tags.length === 0) return null;
  return (
    <div className="facts">
      {task.due !== null && <Due due={task.due} done={task.completed} now={now} today={today} />}
      {task.priority !== null && (
        <span className="fact" data-priority={task.priority}>
          <Flag />
          {inWords(task.priority)}
          <span className="visually-hidden"> priority</span>
        </span>
      )}
      {list !== null && (
        <span className="fact">
          <Lines />
          <span className="visually-hidden">List: </span>
          {list}
        </span>
      )}
      {task.tags.map((tag) => (
        <span key={tag} className="tag">
          <span className="visually-hidden">Tag: </span>
          {tag}
        </span>
      ))}
    </div>
  );
}

function Due({ due, done, now, today }: { due: string; done: boolean; now: Date; today: string }) {
  const when = whenOf(due);
  const overdue = !done && when.over <= now.getTime();
  const there = elsewhere(due);
  return (
    <span className="fact due" data-when={done ? undefined : overdue ? 'overdue' : when.day === today ? 'today' : undefined}>
      <Calendar />
      <span className="visually-hidden">{overdue ? 'Overdue: ' : 'Due: '}</span>
      <span>
        <time dateTime={due.replace(/\[.*$/, '')}>{wordsOf(when, today)}</time>
        {there !== null && <span className="elsewhere"> ({there})</span>}
      </span>
    </span>
  );
}
