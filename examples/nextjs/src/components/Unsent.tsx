'use client';

import type { ReactNode } from 'react';
import type { Field } from '@/lib/edits';
import { wordsOf, whenOf } from '@/lib/due';
import type { Mark } from '@/lib/sync';
import type { Task } from '@/lib/todo-api';
import { Clock } from './icons';

export type Decision = 'keepMine' | 'takeOther' | 'retry' | 'discard';

type Props = { task: Task; mark: Mark; today: string; onDecide: (task: Task, decision: Decision) => void };

const NAMES: Record<Field, string> = {
  title: 'Title',
  description: 'Notes',
  due: 'Due date',
  priority: 'Priority',
  list: 'List',
  tags: 'Tags',
  completed: 'State',
};

/** Why an edit of this task is not sent: the task was changed elsewhere, the API does not accept the edit, or cannot be reached. */
export function Unsent({ task, mark: { edit, clash, current }, today, onDecide }: Props) {
  if (clash) {
    const removes = edit.kind === 'remove';
    const seen = removes ? edit.base : { ...edit.base, ...edit.change };
    const what = clash === 'deleted' ? 'This task was deleted elsewhere meanwhile.' : 'This task was changed elsewhere meanwhile.';
    return (
      <Question task={task} text={removes ? `${what} Delete it all the same?` : what}>
        {clash !== 'deleted' && (
          <table>
            <thead>
              <tr>
                <td />
                <th scope="col">{removes ? 'You saw' : 'Yours'}</th>
                <th scope="col">{removes ? 'Now' : 'Other'}</th>
              </tr>
            </thead>
            <tbody>
              {clash.map((field) => (
                <tr key={field}>
                  <th scope="row">{NAMES[field]}</th>
                  <td>{valueOf(seen, field, today)}</td>
                  <td>{valueOf(current!, field, today)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
        <Choice name={removes ? 'Delete it' : 'Keep mine'} task={task} onClick={() => onDecide(task, 'keepMine')} />
        <Choice
          name={removes ? 'Keep it' : clash === 'deleted' ? 'Delete it here, too' : 'Take the other'}
          task={task}
          onClick={() => onDecide(task, 'takeOther')}
        />
      </Question>
    );
  }
  if (edit.refused) {
    return (
      <Question task={task} text={`Not saved. ${edit.refused}`}>
        <Choice name="Try again" task={task} onClick={() => onDecide(task, 'retry')} />
        <Choice name="Discard my change" task={task} onClick={() => onDecide(task, 'discard')} />
      </Question>
    );
  }
  return (
    <p className="facts unsent">
      <Clock /> Not sent yet
    </p>
  );
}

function Question({ task, text, children }: { task: Task; text: string; children: ReactNode }) {
  return (
    <div className="conflict" role="group" aria-label={`Not saved: “${task.title}”`}>
      <p role="alert">{text}</p>
      {children}
    </div>
  );
}

function Choice({ name, task, onClick }: { name: string; task: Task; onClick: () => void }) {
  return (
    <button type="button" className="quiet" onClick={onClick}>
      {name}
      <span className="visually-hidden"> (“{task.title}”)</span>
    </button>
  );
}

function valueOf(task: Task, field: Field, today: string): string {
  if (field === 'completed') return task.completed ? 'Done' : 'Open';
  if (field === 'due') return task.due === null ? 'None' : wordsOf(whenOf(task.due), today);
  if (field === 'tags') return task.tags.join(', ') || 'None';
  return task[field] || 'None';
}
