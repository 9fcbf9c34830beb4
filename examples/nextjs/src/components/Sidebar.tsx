'use client';

import { useRef, useState, type FormEvent, type MouseEvent, type ReactNode } from 'react';
import type { Counts } from '@/lib/counts';
import type { Priority } from '@/lib/todo-api';
import { viewAt, hrefOf, PRIORITIES, type View } from '@/lib/view';
import { Calendar, Chevron, Clock, Inbox, Lines, Plus } from './icons';
import { inWords } from './TaskForm';

type Props = {
  view: View;
  /** Null until they are loaded. */
  counts: Counts | null;
  /** The name of the place that is shown, for narrow windows. */
  placeName: string;
  goTo: (place: View) => void;
  refine: (change: Partial<View>) => void;
};

/** Where tasks are: the places, the lists, and the tags and priorities to filter by. Narrow windows show it on demand. */
export function Sidebar({ view, counts, placeName, goTo, refine }: Props) {
  const [open, setOpen] = useState(false);
  const toggle = useRef<HTMLButtonElement>(null);
  const lists = namesOf(counts?.lists, view.list ? [view.list] : []).filter((name) => name !== '');
  const tags = namesOf(counts?.tags, view.tags);
  const noList = counts?.lists[''] ?? 0;

  const link = (name: string, icon: ReactNode, to: Pick<Partial<View>, 'due' | 'list'>, count?: number, alarm = false) => {
    const place = viewAt(view, to);
    const isHere = place.due === view.due && place.list === view.list;
    function onClick(event: MouseEvent) {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      if (open) toggle.current?.focus();
      setOpen(false);
      goTo(place);
    }
    return (
      <li key={hrefOf(place)}>
        <a href={hrefOf(place)} aria-current={isHere ? 'page' : undefined} onClick={onClick}>
          {icon}
          <span className="place-name">{name}</span>
          {count !== undefined && count > 0 && (
            <span className="badge" data-alarm={alarm || undefined}>
              {count}
              <span className="visually-hidden"> open</span>
            </span>
          )}
        </a>
      </li>
    );
  };

  return (
    <aside className="side" aria-label="Lists and filters">
      <button
        ref={toggle}
        type="button"
        className="quiet side-toggle"
        aria-expanded={open}
        aria-controls="side-body"
        onClick={() => setOpen(!open)}
      >
        <Lines />
        {placeName}
        <span className="visually-hidden">: lists and filters</span>
        <Chevron />
      </button>
      <div id="side-body" className="side-body" data-open={open}>
        <nav aria-label="Lists">
          <ul role="list">
            {link('All tasks', <Inbox />, {}, counts?.all)}
            {link('Today', <Calendar />, { due: 'today' }, counts?.today)}
            {link('Overdue', <Clock />, { due: 'overdue' }, counts?.overdue, true)}
          </ul>
          <h2>Lists</h2>
          <ul role="list">
            {lists.map((name) => link(name, <Lines />, { list: name }, counts?.lists[name]))}
            {(noList > 0 || view.list === '') && lists.length > 0 && link('No list', <Lines />, { list: '' }, noList)}
          </ul>
          <NewList
            onName={(list) => {
              setOpen(false);
              goTo(viewAt(view, { list }));
              document.getElementById('new-title')?.focus();
            }}
          />
        </nav>
        {tags.length > 0 && (
          <Chips
            name="Tags"
            all={tags}
            chosen={view.tags}
            label={(tag) => tag}
            counts={counts?.tags}
            onChange={(tags) => refine({ tags })}
          />
        )}
        <Chips
          name="Priority"
          all={PRIORITIES}
          chosen={view.priorities}
          label={inWords}
          onChange={(priorities) => refine({ priorities })}
        />
      </div>
    </aside>
  );
}

const namesOf = (counts: Record<string, number> | undefined, shown: string[]) =>
  [...new Set([...Object.keys(counts ?? {}), ...shown])].sort((one, other) => one.localeCompare(other));

type ChipsProps<T extends string> = {
  name: string;
  all: T[];
  chosen: T[];
  label: (value: T) => string;
  counts?: Record<string, number>;
  onChange: (chosen: T[]) => void;
};

function Chips<T extends string>({ name, all, chosen, label, counts, onChange }: ChipsProps<T>) {
  return (
    <div role="group" aria-label={`Filter by ${name.toLowerCase()}`}>
      <h2 aria-hidden>{name}</h2>
      <div className="chips">
        {all.map((value) => {
          const isChosen = chosen.includes(value);
          const count = counts?.[value] ?? 0;
          return (
            <button
              key={value}
              type="button"
              className="chip"
              aria-pressed={isChosen}
              onClick={() => onChange(isChosen ? chosen.filter((other) => other !== value) : [...chosen, value])}
            >
              {label(value)}
              {count > 0 && <span className="chip-count">{count}</span>}
            </button>
          );
        })}
      </div>
    </div>
  );
}

/** A list exists while a task is in it. A new one is opened, and the first task that is written there makes it. */
function NewList({ onName }: { onName: (name: string) => void }) {
  const [name, setName] = useState<string | null>(null);
  const wasOpen = useRef(false);

  function submit(event: FormEvent) {
    event.preventDefault();
    const list = name?.trim();
    wasOpen.current = !list; // else the focus goes on to the new task
    setName(null);
    if (list) onName(list);
  }

  if (name === null) {
    return (
      <button
        type="button"
        className="text-button new-list"
        autoFocus={wasOpen.current}
        onClick={() => {
          wasOpen.current = true;
          setName('');
        }}
      >
        <Plus />
        New list
      </button>
    );
  }
  return (
    <form className="field" onSubmit={submit}>
      <label className="visually-hidden" htmlFor="new-list">
        Name of the new list
      </label>
      <input
        id="new-list"
        value={name}
        maxLength={100}
        autoComplete="off"
        autoFocus
        placeholder="Name of the list"
        onChange={(event) => setName(event.target.value)}
        onBlur={() => name.trim() === '' && setName(null)}
        onKeyDown={(event) => event.key === 'Escape' && setName(null)}
      />
    </form>
  );
}
