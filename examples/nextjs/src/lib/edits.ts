import { fieldsOf, isSame } from './fields';
import type { Place, Task } from './todo-api';

/** Something that the user has done and that the API has not confirmed. */
export type Edit = {
  /** The id of the task. That of a new task is made here, so that it can be sent again, and edited before it is sent. */
  id: string;
  kind: 'add' | 'change' | 'move' | 'remove';
  /** The task as the user saw it. */
  base: Task;
  change: Partial<Task>;
  /** Of a move. */
  place?: Place;
  /** A form waits for the API, and shows what is wrong. Other edits are shown at once. */
  inForm?: boolean;
  /** The API could not be reached: it is sent later. */
  kept: boolean;
  /** Why the API does not accept it. It was kept before, so that the user has gone on meanwhile. */
  refused: string | null;
};

export type Field = 'title' | 'description' | 'due' | 'priority' | 'list' | 'tags' | 'completed';

const FIELDS: Field[] = ['title', 'description', 'due', 'priority', 'list', 'tags', 'completed'];

/** What stands between an edit and the API: the fields that somebody else has changed, too, or that the task was deleted. */
export type Clash = Field[] | 'deleted';

/**
 * Compares what the user saw with the task as it is now. Changes of other fields do not matter, nor does a change to the same value.
 * Moves never clash: the last one wins.
 */
export function clashOf(edit: Edit, current: Task | undefined): Clash | null {
  if (edit.kind === 'add' || edit.kind === 'move') return null;
  if (!current) return edit.kind === 'remove' ? null : 'deleted';
  const fields = FIELDS.filter((field) => edit.kind === 'remove' || field in edit.change);
  const wanted = { ...edit.base, ...edit.change };
  const clashing = fields.filter(
    (field) => !same(field, current, edit.base) && (edit.kind === 'remove' || !same(field, current, wanted)),
  );
  return clashing.length > 0 ? clashing : null;
}

/** Keeps the user's version: the other one has been seen now. */
export const keepMine = (edit: Edit, current: Task | undefined): Edit =>
  current ? { ...edit, base: current } : { ...edit, kind: 'add', base: { ...edit.base, ...edit.change }, change: {} };

/** Takes the other version. Returns null if nothing of the edit is left. */
export function takeOther(edit: Edit, clash: Clash): Edit | null {
  if (edit.kind === 'remove' || clash === 'deleted') return null;
  const left = Object.entries(edit.change).filter(([name]) => !clash.includes(name as Field));
  return left.length > 0 ? { ...edit, change: Object.fromEntries(left) } : null;
}

/** An edit that was made on top of another one, once the API has confirmed that one: it may have written values in another form. */
export function onTopOf(confirmed: Edit, task: Task, edit: Edit): Edit {
  const seen = { ...confirmed.base, ...confirmed.change };
  const fields = FIELDS.filter((field) => same(field, seen, edit.base));
  return { ...edit, base: { ...edit.base, ...Object.fromEntries(fields.map((field) => [field, task[field]])) } };
}

/** The tasks of the API with all edits. */
export function withEdits(tasks: Map<string, Task>, edits: Edit[]): Task[] {
  const shown = new Map(tasks);
  for (const edit of edits) {
    if (edit.inForm && !edit.kept) continue;
    const task = shown.get(edit.id);
    if (edit.kind !== 'remove') shown.set(edit.id, { ...(task ?? edit.base), ...edit.change });
    else if (clashOf(edit, tasks.get(edit.id)) === null) shown.delete(edit.id);
  }
  return [...shown.values()];
}

/** A UUID of version 7: the time in milliseconds, and chance. New tasks are therefore sorted where they belong. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  new DataView(bytes.buffer).setUint32(0, Math.floor(Date.now() / 0x10000));
  new DataView(bytes.buffer).setUint16(4, Date.now() % 0x10000);
  bytes[6] = (bytes[6]! & 0x0f) | 0x70;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** As a form shows it: the API may write a due date in another way. */
function same(field: Field, one: Task, other: Task): boolean {
  return field === 'completed' ? one.completed === other.completed : isSame(fieldsOf(one)[field], fieldsOf(other)[field]);
}
