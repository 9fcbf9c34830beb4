import type { Task } from './todo-api';
import { matches, parseView } from './view';

/** How many tasks are open, in each place of the sidebar. A list or a tag exists while a task has it. */
export type Counts = { all: number; today: number; overdue: number; lists: Record<string, number>; tags: Record<string, number> };

export function countsOf(tasks: Task[], today: string): Counts {
  const at = (address: string) => {
    const view = parseView(new URLSearchParams(address));
    return tasks.filter((task) => matches(task, view, today)).length;
  };
  return {
    all: at('show=open'),
    today: at('due=today&show=open'),
    overdue: at('due=overdue'),
    lists: openBy(tasks, ({ list }) => [list ?? '']),
    tags: openBy(tasks, ({ tags }) => tags),
  };
}

function openBy(tasks: Task[], namesOf: (task: Task) => string[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const task of tasks) for (const name of namesOf(task)) counts.set(name, (counts.get(name) ?? 0) + (task.completed ? 0 : 1));
  return Object.fromEntries(counts);
}
