'use client';

import { addDays, browserZone, cityOf, dayOf, type DueParts } from '@/lib/due';

type Props = {
  id: string;
  due: DueParts;
  onChange: (due: DueParts) => void;
  /** What both inputs share. */
  common: object;
};

/** The day and, if it matters, the time. A time keeps the time zone in which it was meant. */
export function DueField({ id, due, onChange, common }: Props) {
  const today = dayOf(new Date());
  const days = [
    { name: 'Today', day: today },
    { name: 'Tomorrow', day: addDays(today, 1) },
    { name: 'In a week', day: addDays(today, 7) },
  ];
  const meant = due.time === '' || due.zone === browserZone() ? null : due.zone === null ? 'wherever you are' : `in ${cityOf(due.zone)}`;
  return (
    <div className="due-field">
      <div className="due-inputs">
        <div className="field">
          <label htmlFor={`${id}-due`}>Due date</label>
          <input
            {...common}
            id={`${id}-due`}
            type="date"
            value={due.date}
            onChange={(event) => onChange({ ...due, date: event.target.value })}
          />
        </div>
        <div className="field">
          <label htmlFor={`${id}-time`}>
            Time <span className="optional">{meant ?? '(optional)'}</span>
          </label>
          <input
            {...common}
            id={`${id}-time`}
            type="time"
            value={due.time}
            onChange={(event) => onChange({ ...due, time: event.target.value })}
          />
        </div>
      </div>
      <div className="due-days">
        {days.map(({ name, day }) => (
          <button key={name} type="button" className="chip" aria-pressed={due.date === day} onClick={() => onChange({ ...due, date: day })}>
            {name}
          </button>
        ))}
        {(due.date !== '' || due.time !== '') && (
          <button type="button" className="chip" onClick={() => onChange({ date: '', time: '', zone: browserZone() })}>
            No due date
          </button>
        )}
      </div>
    </div>
  );
}
