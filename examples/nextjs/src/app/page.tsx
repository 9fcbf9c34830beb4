import type { Metadata } from 'next';
import { redirect } from 'next/navigation';
import { TodoPage } from '@/components/TodoPage';
import { currentUser } from '@/lib/auth';
import { todoApi } from '@/lib/settings';

export const metadata: Metadata = { title: 'Your tasks' };

type Props = { searchParams: Promise<{ show?: string | string[] }> };

export default async function Home({ searchParams }: Props) {
  const user = await currentUser();
  if (!user) redirect('/sign-in');
  const { show } = await searchParams;
  return (
    <TodoPage
      user={{ id: user.id, name: user.name, email: user.email }}
      apiUrl={todoApi()}
      initialFilter={show === 'open' || show === 'done' ? show : 'all'}
    />
  );
}
