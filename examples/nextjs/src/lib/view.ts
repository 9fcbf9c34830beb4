import { addDays, browserZone, whenOf } from './due';
import type { Filters, Priority, Sort, Task, TaskChanges } from './todo-api';

export type Show = 'all' | 'open' | 'done';

/** What the page shows, as its address says. `list` is null for all lists, and '' for the tasks that are in none. */
export type View = {
  due: 'today' | 'overdue' | null;
  list: string | null;
  tags: string[];
  priorities: Priority[];
  q: string;
  show: Show;
  sort: Sort;
};

export const PRIORITIES: Priority[] = ['urgent', 'high', 'medium', 'low'];

export const SORTS: { value: Sort; label: string }[] = [
  { value: '-created', label: 'Newest first' },
  { value: 'created', label: 'Oldest first' },
  { value: 'due', label: 'Due date' },
  { value: 'priority', label: 'Priority' },
  { value: 'title', label: 'Title' },
  { value: '-updated', label: 'Last changed' },
  { value: 'position', label: 'My order' },
];

const EVERYTHING: View = { due: null, list: null, tags: [], priorities: [], q: '', show: 'all', sort: '-created' };

/** Another place in the sidebar: the other filters end, the order stays. */
export const viewAt = (view: View, place: Pick<Partial<View>, 'due' | 'list'>): View => ({
  ...EVERYTHING,
  show: view.show,
  sort: view.sort,
  ...place,
});

export function parseView(address: URLSearchParams): View {
  const one = <T extends string>(name: string, allowed: readonly T[]) => allowed.find((value) => value === address.get(name));
  return {
    due: one('due', ['today', 'overdue'] as const) ?? null,
    list: address.get('list'),
    tags: address.getAll('tag'),
    priorities: PRIORITIES.filter((priority) => address.getAll('priority').includes(priority)),
    q: address.get('q') ?? '',
    show: one('show', ['open', 'done'] as const) ?? 'all',
    sort: one('sort', SORTS.map(({ value }) => value)) ?? EVERYTHING.sort,
  };
}

export function hrefOf(view: View): string {
  const address = new URLSearchParams();
  if (view.due) address.set('due', view.due);
  if (view.list !== null) address.set('list', view.list);
  for (const tag of view.tags) address.append('tag', tag);
  for (const priority of view.priorities) address.append('priority', priority);
  if (view.q) address.set('q', view.q);
  if (view.show !== 'all') address.set('show', view.show);
  if (view.sort !== EVERYTHING.sort) address.set('sort', view.sort);
  return address.size === 0 ? '/' : `/?${address}`;
}

/** The filters of the API that mean what the view shows. "Overdue" is what is open and was due before today. */
export function filtersOf(view: View, today: string): Filters {
  const completed = view.due === 'overdue' ? false : view.show === 'all' ? undefined : view.show === 'done';
  return {
    completed,
    list: view.list === null ? undefined : [view.list],
    tag: view.tags.length > 0 ? view.tags : undefined,
    priority: view.priorities.length > 0 ? view.priorities : undefined,
    q: view.q.trim() || undefined,
    ...(view.due === 'today' ? { due_from: today, due_before: addDays(today, 1), time_zone: browserZone() } : {}),
    ...(view.due === 'overdue' ? { due_before: today, time_zone: browserZone() } : {}),
  };
}

/** Whether a task that has changed belongs to the view: what the filters say, without asking the API. */
export function matches(task: Task, view: View, today: string): boolean {
  const { completed } = filtersOf(view, today);
  const day = task.due === null ? null : whenOf(task.due).day;
  const text = view.q.trim().toLowerCase();
  return (
    (completed === undefined || task.completed === completed) &&
    (view.list === null || (task.list ?? '') === view.list) &&
    view.tags.every((tag) => task.tags.includes(tag)) &&
    (view.priorities.length === 0 || (task.priority !== null && view.priorities.includes(task.priority))) &&
    (view.due === null || (day !== null && (view.due === 'today' ? day === today : day < today))) &&
    (task.title.toLowerCase().includes(text) || (task.description ?? '').toLowerCase().includes(text))
  );
}

/** What a new task gets so that it appears where it is written. */
export function defaultsOf(view: View, today: string): TaskChanges {
  return {
    due: view.due === 'today' ? today : null,
    list: view.list || null,
    tags: view.tags,
    priority: view.priorities.length === 1 ? view.priorities[0] : null,
  };
}

export function nameOf(view: View): string {
  if (view.due === 'today') return 'Today';
  if (view.due === 'overdue') return 'Overdue';
  if (view.list === '') return 'No list';
  return view.list ?? 'All tasks';
}

/** The order of the API. Equal tasks are in the order of their ids, and tasks without the value come last. */
export function inOrder(tasks: Task[], sort: Sort): Task[] {
  const direction = sort.startsWith('-') || sort === 'priority' ? -1 : 1;
  const key = KEYS[sort];
  const compare = <T extends string | number>(one: T, other: T) => (one < other ? -1 : one > other ? 1 : 0);
  return tasks
    .map((task) => ({ task, key: key(task) }))
    .sort((one, other) => {
      if (one.key === null || other.key === null) {
        if (one.key !== other.key) return one.key === null ? 1 : -1;
      } else {
        const order = compare(one.key, other.key);
        if (order !== 0) return order * direction;
      }
      return compare(one.task.id, other.task.id) * direction;
    })
    .map(({ task }) => task);
}

const none = () => null;
const due = (task: Task) => (task.due === null ? null : sortKeyOf(task.due));

const KEYS: Record<Sort, (task: Task) => string | number | null> = {
  '-created': none,
  created: none,
  due,
  '-due': due,
  priority: (task) => (task.priority === null ? null : -PRIORITIES.indexOf(task.priority)),
  title: (task) => task.title.toLowerCase(),
  updated: (task) => task.updated_at,
  '-updated': (task) => task.updated_at,
  position: (task) => task.position,
};

/** As the API sorts: dates and local times as if they were in UTC. */
function sortKeyOf(text: string): number {
  const moment = text.replace(/\[.*$/, '');
  return Date.parse(/T.*(Z|[+-]\d\d:\d\d)$/.test(moment) || !moment.includes('T') ? moment : `${moment}Z`);
}
