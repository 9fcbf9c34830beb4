'use client';

import { groupOf } from '@/lib/due';
import type { Mark } from '@/lib/sync';
import type { Task } from '@/lib/todo-api';
import type { View } from '@/lib/view';
import type { Known } from './TaskForm';
import { TaskRow, type RowActions } from './TaskRow';
import { useReorder } from './useReorder';

type Props = RowActions & {
  tasks: Task[];
  marks: Map<string, Mark>;
  view: View;
  now: Date;
  today: string;
  known: Known;
  /** Null: not while tasks are being selected. */
  selected: ReadonlySet<string> | null;
  onMove: (task: Task, to: number) => void;
  say: (text: string) => void;
};

/** The rows: under headings if they are sorted by due date, with handles in the manual order. */
export function TaskList({ tasks, marks, view, now, today, known, selected, onMove, say, ...actions }: Props) {
  const { list, handle, shiftOf, movingId } = useReorder({ tasks, onMove, say });
  const movable = view.sort === 'position' && selected === null && tasks.length > 1;

  const row = (task: Task, at: number) => (
    <TaskRow
      key={task.id}
      {...actions}
      task={task}
      mark={marks.get(task.id)}
      now={now}
      today={today}
      known={known}
      showList={view.list === null}
      selected={selected === null ? null : selected.has(task.id)}
      handle={movable ? handle(task) : undefined}
      shift={movable ? shiftOf(at) : 0}
      moving={movingId === task.id}
    />
  );

  if (view.sort !== 'due') {
    return (
      <>
        <ul
          ref={list}
          className="sheet tasks"
          role="list"
          aria-labelledby="list-heading"
          data-reordering={movingId !== null || undefined}
        >
          {tasks.map(row)}
        </ul>
        <p id="how-to-move" hidden>
          Press Space to pick it up, the arrow keys to move it, Space to drop it, Escape to put it back.
        </p>
      </>
    );
  }
  return (
    <>
      {groups(tasks, today).map(([name, members]) => (
        <section key={name} className="group" aria-label={name}>
          <h3 data-overdue={name === 'Overdue' || undefined}>
            {name} <span className="badge">{members.length}</span>
          </h3>
          <ul className="sheet tasks" role="list" aria-label={name}>
            {members.map(row)}
          </ul>
        </section>
      ))}
    </>
  );
}

/** The groups in the order in which their first tasks come. A task joins its group even if others came in between. */
function groups(tasks: Task[], today: string) {
  const byName = new Map<string, Task[]>();
  for (const task of tasks) {
    const name = groupOf(task, today);
    byName.set(name, [...(byName.get(name) ?? []), task]);
  }
  return [...byName];
}
