'use client';

import { useEffect, useRef, useState, type FormEvent, type KeyboardEvent } from 'react';
import { dropDraft, getDraft, keepDraft } from '@/lib/drafts';
import { Problem, type TaskFields } from '@/lib/todo-api';
import { messageOf } from './useTasks';

const TITLE_LIMIT = 200;
const DESCRIPTION_LIMIT = 1000;

type Props = {
  /** Prefix of the element ids, and the name its draft is kept under. */
  id: string;
  titleLabel: string;
  initial?: TaskFields;
  submitLabel: string;
  busyLabel: string;
  onSubmit: (fields: TaskFields) => Promise<void>;
  /** With it, the form has a cancel button and takes the focus. */
  onCancel?: () => void;
};

type Failure = { message: string | null; fields: Record<string, string> };

/** Title and description, for a new task and for one being edited. What was typed stays until it is saved. */
export function TaskForm({ id, titleLabel, initial, submitLabel, busyLabel, onSubmit, onCancel }: Props) {
  const [fields, setFields] = useState(() => getDraft(id) ?? asText(initial));
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure | null>(null);
  const title = useRef<HTMLInputElement>(null);
  const description = useRef<HTMLTextAreaElement>(null);

  useEffect(() => {
    if (onCancel) title.current?.focus();
    // Once, when the form appears.
  }, []);

  useEffect(() => {
    if (!failure) return;
    if (failure.fields.title) title.current?.focus();
    else if (failure.fields.description) description.current?.focus();
  }, [failure]);

  function change(part: Partial<typeof fields>) {
    const changed = { ...fields, ...part };
    setFields(changed);
    const untouched = asText(initial);
    if (changed.title === untouched.title && changed.description === untouched.description) dropDraft(id);
    else keepDraft(id, changed);
  }

  async function submit(event?: FormEvent) {
    event?.preventDefault();
    if (busy) return;
    if (fields.title.trim() === '') {
      setFailure({ message: null, fields: { title: 'Please give the task a title.' } });
      return;
    }
    setBusy(true);
    setFailure(null);
    try {
      await onSubmit({
        title: fields.title.trim(),
        description: fields.description.trim() === '' ? null : fields.description,
      });
      dropDraft(id);
      if (!onCancel) {
        setFields(asText());
        title.current?.focus();
      }
    } catch (error) {
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

  const common = { readOnly: busy, autoComplete: 'off' };
  return (
    <form className="task-form" noValidate aria-busy={busy} onSubmit={submit} onKeyDown={onKeyDown}>
      <div className="task-fields">
        <div className="field">
          <Label htmlFor={`${id}-title`} text={titleLabel} value={fields.title} limit={TITLE_LIMIT} />
          <input
            {...common}
            {...invalid(id, 'title', failure)}
            id={`${id}-title`}
            ref={title}
            placeholder={initial ? undefined : 'What needs doing?'}
            value={fields.title}
            enterKeyHint="done"
            onChange={(event) => change({ title: event.target.value })}
          />
          <FieldProblem id={id} name="title" failure={failure} />
        </div>
        <div className="field">
          <Label htmlFor={`${id}-description`} text="Details (optional)" value={fields.description} limit={DESCRIPTION_LIMIT} />
          <textarea
            {...common}
            {...invalid(id, 'description', failure)}
            id={`${id}-description`}
            ref={description}
            rows={1}
            value={fields.description}
            onChange={(event) => change({ description: event.target.value })}
          />
          <FieldProblem id={id} name="description" failure={failure} />
        </div>
      </div>
      {failure?.message && (
        <p className="form-problem" role="alert">
          {failure.message}
        </p>
      )}
      <div className="form-actions">
        {onCancel && (
          <button type="button" className="quiet" onClick={cancel}>
            Cancel
          </button>
        )}
        <button type="submit" className="primary" aria-disabled={busy}>
          {busy ? busyLabel : submitLabel}
        </button>
      </div>
    </form>
  );
}

/** The API says "must have at most 200 characters" of a field: here it becomes a sentence. */
function failureOf(error: unknown): Failure {
  const subjects: Record<string, string> = { title: 'The title', description: 'The details' };
  const fields: Record<string, string> = {};
  let message = messageOf(error);
  for (const [name, text] of Object.entries(error instanceof Problem ? error.fields : {})) {
    if (subjects[name]) fields[name] = /^[a-z]/.test(text) ? `${subjects[name]} ${text}.` : text;
    else message += ` (${name}: ${text})`;
  }
  return { message, fields };
}

const asText = (fields?: TaskFields) => ({ title: fields?.title ?? '', description: fields?.description ?? '' });

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

function FieldProblem({ id, name, failure }: { id: string; name: string; failure: Failure | null }) {
  const message = failure?.fields[name];
  return message ? (
    <p className="field-problem" id={`${id}-${name}-problem`}>
      {message}
    </p>
  ) : null;
}

function invalid(id: string, name: string, failure: Failure | null) {
  return failure?.fields[name] ? { 'aria-invalid': true, 'aria-describedby': `${id}-${name}-problem` } : {};
}
