'use client';

import type { View } from '@/lib/view';
import { Tick } from './icons';

type Props = {
  list: { state: 'loading' | 'ready' | 'failed'; problem: string | null };
  view: View;
  onRetry: () => void;
};

/** What stands in the place of the rows: that they are being loaded, that they could not be, or that there are none. */
export function ListState({ list, view, onRetry }: Props) {
  if (list.state === 'failed') {
    return (
      <div className="sheet message" role="alert">
        <h3>Your tasks could not be loaded</h3>
        <p>{list.problem}</p>
        <button type="button" className="primary" onClick={onRetry}>
          Try again
        </button>
      </div>
    );
  }
  if (list.state === 'loading') {
    return (
      <div className="sheet skeleton">
        <p className="visually-hidden">Loading your tasks…</p>
        <span />
        <span />
        <span />
      </div>
    );
  }
  const { title, text } = emptiness(view);
  return (
    <div className="message">
      <span className="empty-art">
        <Tick />
      </span>
      <h3>{title}</h3>
      <p>{text}</p>
    </div>
  );
}

function emptiness(view: View): { title: string; text: string } {
  const isFiltered = view.q.trim() !== '' || view.tags.length > 0 || view.priorities.length > 0;
  if (isFiltered) return { title: 'Nothing found', text: 'No task here fits the search and the filters.' };
  if (view.due === 'overdue') return { title: 'Nothing is overdue', text: 'Everything that was due before today is done.' };
  if (view.show === 'done') return { title: 'Nothing done yet', text: 'What you tick off is kept here.' };
  if (view.show === 'open') return { title: 'All done', text: 'Nothing is waiting for you.' };
  if (view.due === 'today') return { title: 'A free day', text: 'Nothing is due today. What you write above is due today.' };
  if (view.list) return { title: 'An empty list', text: 'Write its first task above.' };
  return { title: 'A clean page', text: 'Write down the first thing on your mind, above.' };
}
