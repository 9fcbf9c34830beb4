'use client';

import { useEffect, useId, useRef, useState, type FormEvent, type KeyboardEvent } from 'react';
import { dropDraft, getDraft, keepDraft } from '@/lib/drafts';
import { fieldsOf, isSame, type FormFields } from '@/lib/fields';
import { Problem, type Priority } from '@/lib/todo-api';
import { PRIORITIES } from '@/lib/view';
import { DueField } from './DueField';
import { Chevron } from './icons';
import { TagsField } from './TagsField';
import { messageOf } from './useTasks';

const TITLE_LIMIT = 200;
const DESCRIPTION_LIMIT = 1000;

/** What the API calls a field, as the beginning of a sentence. */
const SUBJECTS: Record<string, string> = {
  title: 'The title',
  description: 'The notes',
  due: 'The due date',
  priority: 'The priority',
  list: 'The list',
  tags: 'The tag',
};

/** Lists and tags that tasks have already, to choose from. */
export type Known = { lists: string[]; tags: string[] };

type Props = {
  /** Prefix of the element ids, and the name its draft is kept under. */
  id: string;
  titleLabel: string;
  /** What the form shows where the user has changed nothing. */
  initial: FormFields;
  known: Known;
  submitLabel: string;
  busyLabel: string;
  onSubmit: (changed: Partial<FormFields>, all: FormFields) => Promise<void>;
  /** With it, the form has a cancel button and takes the focus. Without it, it begins with the title alone. */
  onCancel?: () => void;
};

type Failure = { message: string | null; fields: Record<string, string> };

/** The fields of a task, for a new one and for one being edited. What was typed stays until it is saved. */
export function TaskForm({ id, titleLabel, initial, known, submitLabel, busyLabel, onSubmit, onCancel }: Props) {
  const [changed, setChanged] = useState<Partial<FormFields>>(() => getDraft(id) ?? {});
  const [open, setOpen] = useState(() => onCancel !== undefined || Object.keys(changed).some((name) => name !== 'title'));
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure | null>(null);
  const form = useRef<HTMLFormElement>(null);
  const title = useRef<HTMLInputElement>(null);
  const moreId = useId();
  const fields = { ...initial, ...changed };

  useEffect(() => {
    if (onCancel) title.current?.focus();
    // Once, when the form appears.
  }, []);

  // The first field to correct has the focus, and is there to be seen.
  useEffect(() => {
    const [name] = Object.keys(failure?.fields ?? {});
    if (name === undefined) return;
    if (name !== 'title') setOpen(true);
    requestAnimationFrame(() => document.getElementById(`${id}-${name}`)?.focus());
  }, [failure, id]);

  function change(part: Partial<FormFields>) {
    const all = Object.entries({ ...changed, ...part }) as [keyof FormFields, unknown][];
    const left = Object.fromEntries(all.filter(([name, value]) => !isSame(value, initial[name])));
    setChanged(left);
    if (Object.keys(left).length === 0) dropDraft(id);
    else keepDraft(id, left);
  }

  async function submit(event?: FormEvent) {
    event?.preventDefault();
    if (busy) return;
    const mistakes = mistakesIn(fields, form.current!);
    if (Object.keys(mistakes).length > 0) return setFailure({ message: null, fields: mistakes });
    setBusy(true);
    setFailure(null);
    dropDraft(id);
    try {
      await onSubmit(changed, fields);
      if (!onCancel) {
        setChanged({});
        title.current?.focus();
      }
    } catch (error) {
      if (Object.keys(changed).length > 0) keepDraft(id, changed);
      setFailure(failureOf(error));
    } finally {
      setBusy(false);
    }
  }

  function cancel() {
    if (busy) return;
    dropDraft(id);
    onCancel?.();
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.nativeEvent.isComposing) return;
    if (event.key === 'Escape' && onCancel) {
      event.preventDefault();
      cancel();
    }
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) void submit();
  }

  const invalid = (name: string) =>
    failure?.fields[name] ? { 'aria-invalid': true, 'aria-describedby': `${id}-${name}-problem` } : {};
  const common = (name: string) => ({ readOnly: busy, autoComplete: 'off', ...invalid(name) });
  const problem = (name: string) =>
    failure?.fields[name] && (
      <p className="field-problem" id={`${id}-${name}-problem`}>
        {failure.fields[name]}
      </p>
    );

  const actions = (
    <div className="form-actions">
      {onCancel ? (
        <button type="button" className="quiet" onClick={cancel}>
          Cancel
        </button>
      ) : (
        <button type="button" className="quiet more-fields" aria-expanded={open} aria-controls={moreId} onClick={() => setOpen(!open)}>
          Details
          <Chevron />
        </button>
      )}
      <button type="submit" className="primary" aria-disabled={busy}>
        {busy ? busyLabel : submitLabel}
      </button>
    </div>
  );

  return (
    <form ref={form} className="task-form" noValidate aria-busy={busy} onSubmit={submit} onKeyDown={onKeyDown}>
      <div className="title-line">
        <div className="field bare">
          <Label htmlFor={`${id}-title`} text={titleLabel} value={fields.title} limit={TITLE_LIMIT} />
          <input
            {...common('title')}
            id={`${id}-title`}
            ref={title}
            placeholder={onCancel ? undefined : 'What needs doing?'}
            value={fields.title}
            enterKeyHint="done"
            onChange={(event) => change({ title: event.target.value })}
          />
          {problem('title')}
        </div>
        {!onCancel && actions}
      </div>

      <div id={moreId}>
        {open && (
          <div className="task-more">
            <div className="field bare">
              <Label htmlFor={`${id}-description`} text="Notes" value={fields.description} limit={DESCRIPTION_LIMIT} />
              <textarea
                {...common('description')}
                id={`${id}-description`}
                rows={1}
                value={fields.description}
                onChange={(event) => change({ description: event.target.value })}
              />
              {problem('description')}
            </div>
            <div className="task-facts">
              <div>
                <DueField id={id} due={fields.due} common={common('due')} onChange={(due) => change({ due })} />
                {problem('due')}
              </div>
              <div className="field">
                <label htmlFor={`${id}-priority`}>Priority</label>
                <select
                  {...invalid('priority')}
                  id={`${id}-priority`}
                  value={fields.priority}
                  onChange={(event) => change({ priority: event.target.value as Priority | '' })}
                >
                  <option value="">None</option>
                  {PRIORITIES.map((priority) => (
                    <option key={priority} value={priority}>
                      {inWords(priority)}
                    </option>
                  ))}
                </select>
                {problem('priority')}
              </div>
              <div className="field">
                <label htmlFor={`${id}-list`}>List</label>
                <input
                  {...common('list')}
                  id={`${id}-list`}
                  list={`${id}-known-lists`}
                  placeholder="No list"
                  value={fields.list}
                  onChange={(event) => change({ list: event.target.value })}
                />
                <datalist id={`${id}-known-lists`}>
                  {known.lists.map((name) => (
                    <option key={name} value={name} />
                  ))}
                </datalist>
                {problem('list')}
              </div>
              <div>
                <TagsField id={id} tags={fields.tags} text={fields.tagText} known={known.tags} common={common('tags')} onChange={change} />
                {problem('tags')}
              </div>
            </div>
          </div>
        )}
      </div>

      {failure?.message && (
        <p className="form-problem" role="alert">
          {failure.message}
        </p>
      )}
      {onCancel && actions}
    </form>
  );
}

export const inWords = (priority: Priority) => priority[0]!.toUpperCase() + priority.slice(1);

/** What the form itself sees: a date of which only a part was typed has no value that could be sent. */
function mistakesIn(fields: FormFields, form: HTMLFormElement): Record<string, string> {
  const mistakes: Record<string, string> = {};
  if (fields.title.trim() === '') mistakes.title = 'Please give the task a title.';
  const isHalfTyped = [...form.querySelectorAll<HTMLInputElement>('[type=date], [type=time]')].some((input) => input.validity.badInput);
  if (isHalfTyped) mistakes.due = 'Please complete the due date, or clear it.';
  else if (fields.due.date === '' && fields.due.time !== '') mistakes.due = 'Please choose the day of this time.';
  return mistakes;
}

/** The API says "must have at most 200 characters" of a field: here it becomes a sentence. `tags.2` is the third tag. */
function failureOf(error: unknown): Failure {
  const fields: Record<string, string> = {};
  let message = messageOf(error);
  for (const [name, text] of Object.entries(error instanceof Problem ? error.fields : {})) {
    const [field = name] = name.split('.');
    if (SUBJECTS[field]) fields[field] = /^[a-z]/.test(text) ? `${SUBJECTS[field]} ${text}.` : text;
    else message += ` (${name}: ${text})`;
  }
  return { message, fields };
}

/** The label, and the length once it comes near the limit. Nothing is cut off: the user decides what to shorten. */
function Label({ htmlFor, text, value, limit }: { htmlFor: string; text: string; value: string; limit: number }) {
  const length = [...value.trim()].length;
  return (
    <div className="label-row">
      <label htmlFor={htmlFor}>{text}</label>
      {length > limit * 0.8 && (
        <span className="count" data-over={length > limit}>
          {length} of {limit}
        </span>
      )}
    </div>
  );
}
