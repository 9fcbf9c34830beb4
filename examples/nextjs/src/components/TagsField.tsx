'use client';

import { useRef, type KeyboardEvent } from 'react';
import { withTag } from '@/lib/fields';
import { Cross } from './icons';

type Props = {
  id: string;
  tags: string[];
  text: string;
  /** Tags that other tasks have. */
  known: string[];
  onChange: (change: { tags?: string[]; tagText?: string }) => void;
  common: object;
};

/** Tags as chips, and an input for the next one. Enter or a comma ends a tag; what is still in the input counts as one, too. */
export function TagsField({ id, tags, text, known, onChange, common }: Props) {
  const input = useRef<HTMLInputElement>(null);

  function remove(tag: string) {
    onChange({ tags: tags.filter((other) => other !== tag) });
    input.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.nativeEvent.isComposing) return;
    const isEnd = event.key === ',' || (event.key === 'Enter' && !event.ctrlKey && !event.metaKey);
    if (isEnd && text.trim() !== '') {
      event.preventDefault();
      onChange({ tags: withTag(tags, text), tagText: '' });
    }
    if (event.key === 'Backspace' && text === '' && tags.length > 0) onChange({ tags: tags.slice(0, -1) });
  }

  return (
    <div className="field">
      <label htmlFor={`${id}-tags`}>Tags</label>
      <div className="tags-box">
        {tags.map((tag) => (
          <span key={tag} className="tag">
            {tag}
            <button type="button" aria-label={`Remove the tag “${tag}”`} onClick={() => remove(tag)}>
              <Cross />
            </button>
          </span>
        ))}
        <input
          {...common}
          ref={input}
          id={`${id}-tags`}
          list={`${id}-known-tags`}
          value={text}
          autoCapitalize="none"
          placeholder={tags.length === 0 ? 'Add a tag' : undefined}
          onChange={(event) => onChange({ tagText: event.target.value })}
          onKeyDown={onKeyDown}
        />
      </div>
      <datalist id={`${id}-known-tags`}>
        {known.filter((tag) => !tags.includes(tag)).map((tag) => (
          <option key={tag} value={tag} />
        ))}
      </datalist>
    </div>
  );
}
