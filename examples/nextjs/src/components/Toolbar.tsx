'use client';

import { useEffect, useRef, useState } from 'react';
import type { Sort } from '@/lib/todo-api';
import { SORTS, type Show, type View } from '@/lib/view';
import { Cross, Glass } from './icons';
import { inWords } from './TaskForm';

const SHOWS: { value: Show; label: string }[] = [
  { value: 'all', label: 'All' },
  { value: 'open', label: 'Open' },
  { value: 'done', label: 'Done' },
];

const TYPING_MS = 300;

type Props = {
  view: View;
  name: string;
  selecting: boolean;
  refine: (change: Partial<View>) => void;
  onSelecting: (selecting: boolean) => void;
};

/** The heading of the list, and how the list is searched, filtered and sorted. */
export function Toolbar({ view, name, selecting, refine, onSelecting }: Props) {
  const select = useRef<HTMLButtonElement>(null);
  const wasSelecting = useRef(selecting);
  useEffect(() => {
    // The bar in which the selection was ended is gone.
    if (!selecting && wasSelecting.current && document.activeElement === document.body) select.current?.focus();
    wasSelecting.current = selecting;
  }, [selecting]);

  return (
    <div className="list-head">
      <h2 id="list-heading">{name}</h2>
      {view.due !== 'overdue' && (
        <fieldset className="filter">
          <legend className="visually-hidden">Show</legend>
          {SHOWS.map(({ value, label }) => (
            <label key={value}>
              <input type="radio" name="show" value={value} checked={view.show === value} onChange={() => refine({ show: value })} />
              <span>{label}</span>
            </label>
          ))}
        </fieldset>
      )}
      <div className="tools">
        <Search q={view.q} onSearch={(q) => refine({ q })} />
        <span className="sort">
          <select aria-label="Sort" value={view.sort} onChange={(event) => refine({ sort: event.target.value as Sort })}>
            {SORTS.map(({ value, label }) => (
              <option key={value} value={value}>
                {label}
              </option>
            ))}
          </select>
        </span>
        <button ref={select} type="button" className="quiet" aria-pressed={selecting} onClick={() => onSelecting(!selecting)}>
          Select
        </button>
      </div>
      <ChosenFilters view={view} refine={refine} />
    </div>
  );
}

/** Searches once the user has stopped typing. */
function Search({ q, onSearch }: { q: string; onSearch: (q: string) => void }) {
  const [text, setText] = useState(q);
  const sent = useRef(q);

  // Changed elsewhere: another place, or the back button.
  useEffect(() => {
    if (q !== sent.current) setText(q);
    sent.current = q;
  }, [q]);

  useEffect(() => {
    if (text === sent.current) return;
    const timer = setTimeout(() => {
      sent.current = text;
      onSearch(text);
    }, TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);

  return (
    <div className="search" role="search">
      <Glass />
      <input
        type="search"
        aria-label="Search tasks"
        placeholder="Search"
        maxLength={200}
        autoComplete="off"
        value={text}
        onChange={(event) => setText(event.target.value)}
      />
    </div>
  );
}

/** The tags and priorities that are filtered by. Narrow windows do not show the sidebar, where they are chosen. */
function ChosenFilters({ view, refine }: Pick<Props, 'view' | 'refine'>) {
  const chosen = [
    ...view.tags.map((tag) => ({ name: tag, end: () => refine({ tags: view.tags.filter((other) => other !== tag) }) })),
    ...view.priorities.map((priority) => ({
      name: `${inWords(priority)} priority`,
      end: () => refine({ priorities: view.priorities.filter((other) => other !== priority) }),
    })),
  ];
  if (chosen.length === 0) return null;
  return (
    <ul className="chips chosen" role="list" aria-label="Filters">
      {chosen.map(({ name, end }) => (
        <li key={name}>
          <button type="button" className="chip" aria-label={`Remove the filter “${name}”`} onClick={end}>
            {name}
            <Cross />
          </button>
        </li>
      ))}
    </ul>
  );
}
