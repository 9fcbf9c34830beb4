import type { Metadata } from 'next';
import { redirect } from 'next/navigation';
import { TodoPage } from '@/components/TodoPage';
import { currentUser } from '@/lib/auth';
import { todoApi } from '@/lib/settings';
import { parseView } from '@/lib/view';

export const metadata: Metadata = { title: 'Your tasks' };

type Props = { searchParams: Promise<Record<string, string | string[] | undefined>> };

export default async function Home({ searchParams }: Props) {
  const user = await currentUser();
  if (!user) redirect('/sign-in');
  const address = Object.entries(await searchParams).flatMap(([name, value]) => [value ?? []].flat().map((one) => [name, one]));
  return (
    <TodoPage
      user={{ id: user.id, name: user.name, email: user.email }}
      apiUrl={todoApi()}
      initialView={parseView(new URLSearchParams(address))}
    />
  );
}
