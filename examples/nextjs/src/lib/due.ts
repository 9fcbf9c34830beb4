import type { Task } from './todo-api';

/**
 * A due time as a form shows it: the date and the time on the clock, empty if there is none. `zone` is the time zone in which
 * that clock hangs, or null for "wherever one is". It is kept while date and time change, so that what was meant stays.
 */
export type DueParts = { date: string; time: string; zone: string | null };

/** Where a due time falls on the calendar and the clock of this browser. `over` is the moment from which it is overdue. */
export type When = { day: string; time: string; over: number };

const DAY_MS = 86_400_000;
const FORM = /^(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d)(?::(\d\d)(?:\.\d+)?)?(Z|[+-][\d:]+)?(?:\[(.+)\])?)?$/;

/** The time zone of this browser, as IANA calls it. */
export function browserZone(): string {
  const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
  return !timeZone || timeZone === 'Etc/Unknown' ? 'UTC' : timeZone;
}

export function partsOf(due: string | null | undefined): DueParts {
  const [, date, time, seconds, offset, zone] = FORM.exec(due ?? '') ?? [];
  if (due == null || date === undefined) return { date: '', time: '', zone: browserZone() };
  if (time === undefined) return { date, time: '', zone: browserZone() };
  if (offset !== undefined && zone === undefined) {
    const local = new Date(due);
    return { date: dayOf(local), time: clockOf(local), zone: browserZone() };
  }
  return { date, time: seconds === undefined || seconds === '00' ? time : `${time}:${seconds}`, zone: zone ?? null };
}

/** The due time of a form in the form of the API. A time without a date is left to the API to reject. */
export function dueOf({ date, time, zone }: DueParts): string | null {
  if (date === '' && time === '') return null;
  if (time === '') return date;
  return zone === null ? `${date}T${time}` : `${date}T${time}[${zone}]`;
}

export function whenOf(due: string): When {
  const [, date = '', time] = FORM.exec(due) ?? [];
  if (time === undefined) return { day: date, time: '', over: new Date(`${addDays(date, 1)}T00:00`).getTime() };
  // A local time is read in this browser's zone. The API sends a zone with its offset; until then it is taken for the browser's.
  const local = new Date(due.replace(/\[.*$/, ''));
  return { day: dayOf(local), time: clockOf(local), over: local.getTime() };
}

/** The day and the time in words: "Today", "Tomorrow 17:00", "Fri 4 Dec 17:00". */
export function wordsOf(when: When, today: string): string {
  return [dayInWords(when.day, today), when.time].filter(Boolean).join(' ');
}

/** For a time that was meant in another time zone: what its clock shows there, such as "17:00 in New York". */
export function elsewhere(due: string): string | null {
  const { date, time, zone } = partsOf(due);
  if (zone === null || time === '' || zone === browserZone()) return null;
  const here = whenOf(due);
  if (here.day === date && here.time === time) return null;
  return `${time} in ${cityOf(zone)}`;
}

export const cityOf = (zone: string) => (zone.split('/').at(-1) ?? zone).replaceAll('_', ' ');

/** The calendar day of a moment in this browser's zone, as `2026-12-01`. */
export function dayOf(moment: Date): string {
  const [year, month, day] = [moment.getFullYear(), moment.getMonth() + 1, moment.getDate()];
  return `${String(year).padStart(4, '0')}-${String(month).padStart(2, '0')}-${String(day).padStart(2, '0')}`;
}

export const addDays = (day: string, days: number) => new Date(Date.parse(day) + days * DAY_MS).toISOString().slice(0, 10);

export type DueGroup = 'Overdue' | 'Earlier' | 'Today' | 'Tomorrow' | 'Next 7 days' | 'Later' | 'No due date';

/** Under which heading a task stands when the list is sorted by due date. */
export function groupOf(task: Task, today: string): DueGroup {
  if (task.due === null) return 'No due date';
  const days = daysFrom(today, whenOf(task.due).day);
  if (days < 0) return task.completed ? 'Earlier' : 'Overdue';
  if (days === 0) return 'Today';
  if (days === 1) return 'Tomorrow';
  return days <= 7 ? 'Next 7 days' : 'Later';
}

const clockOf = (moment: Date) => `${String(moment.getHours()).padStart(2, '0')}:${String(moment.getMinutes()).padStart(2, '0')}`;

const daysFrom = (today: string, day: string) => Math.round((Date.parse(day) - Date.parse(today)) / DAY_MS);

function dayInWords(day: string, today: string): string {
  const days = daysFrom(today, day);
  if (days === 0) return 'Today';
  if (days === 1) return 'Tomorrow';
  if (days === -1) return 'Yesterday';
  const sameYear = day.slice(0, 4) === today.slice(0, 4);
  const format = new Intl.DateTimeFormat('en-GB', {
    weekday: Math.abs(days) < 180 ? 'short' : undefined,
    day: 'numeric',
    month: 'short',
    year: sameYear ? undefined : 'numeric',
    timeZone: 'UTC',
  });
  return format.format(Date.parse(day)).replace(',', '');
}
