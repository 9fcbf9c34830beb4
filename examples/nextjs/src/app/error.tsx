'use client';

import { Wordmark } from '@/components/icons';

/** Shown when a page cannot be rendered, such as while the database of the accounts is away. */
export default function Failure() {
  return (
    <main className="alone">
      <Wordmark />
      <h1>Something went wrong</h1>
      <p>This is not your fault, and your tasks are safe.</p>
      <button type="button" className="primary" onClick={() => window.location.reload()}>
        Try again
      </button>
    </main>
  );
}
