import type { Metadata } from 'next';
import Link from 'next/link';
import { Wordmark } from '@/components/icons';

export const metadata: Metadata = { title: 'Not found' };

export default function NotFound() {
  return (
    <main className="alone">
      <Wordmark />
      <h1>There is nothing here</h1>
      <p>
        The page may have moved. <Link href="/">To your tasks</Link>
      </p>
    </main>
  );
}
