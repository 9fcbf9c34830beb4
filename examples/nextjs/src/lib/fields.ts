import { dueOf, partsOf, type DueParts } from './due';
import type { NewTask, Priority, Task, TaskChanges } from './todo-api';

/** What a form shows of a task. `tagText` is a tag that is being typed. */
export type FormFields = {
  title: string;
  description: string;
  due: DueParts;
  priority: Priority | '';
  list: string;
  tags: string[];
  tagText: string;
};

export function fieldsOf(task: Partial<Task> | TaskChanges): FormFields {
  return {
    title: task.title ?? '',
    description: task.description ?? '',
    due: partsOf(task.due),
    priority: task.priority ?? '',
    list: task.list ?? '',
    tags: task.tags ?? [],
    tagText: '',
  };
}

export const isSame = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other);

export function withTag(tags: string[], text: string): string[] {
  const fresh = text.split(',').map((tag) => tag.trim().replace(/^#/, ''));
  return [...new Set([...tags, ...fresh])].filter(Boolean);
}

/** What the API is told: only the fields that were changed, so that a change made elsewhere to another field survives. */
export function changesOf(changed: Partial<FormFields>, all: FormFields): TaskChanges {
  const changes: TaskChanges = {};
  if ('title' in changed) changes.title = all.title.trim();
  if ('description' in changed) changes.description = all.description.trim() === '' ? null : all.description;
  if ('due' in changed) changes.due = dueOf(all.due);
  if ('priority' in changed) changes.priority = all.priority || null;
  if ('list' in changed) changes.list = all.list.trim() || null;
  if ('tags' in changed || all.tagText.trim() !== '') changes.tags = withTag(all.tags, all.tagText);
  return changes;
}

export const newTaskOf = (all: FormFields): NewTask => ({ ...changesOf(all, all), title: all.title.trim() });
