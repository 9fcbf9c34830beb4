import type { Metadata } from 'next';
import { redirect } from 'next/navigation';
import { SignForm } from '@/components/SignForm';
import { currentUser } from '@/lib/auth';
import type { Reason } from '@/lib/auth-client';

export const metadata: Metadata = { title: 'Sign in' };

const MESSAGES = new Map<unknown, string>([
  ['session-ended', 'Your session has ended. Please sign in again; nothing you typed is lost.'],
  ['signed-out', 'You are signed out.'],
] satisfies [Reason, string][]);

type Props = { searchParams: Promise<{ why?: string | string[] }> };

export default async function SignIn({ searchParams }: Props) {
  if (await currentUser()) redirect('/');
  const { why } = await searchParams;
  return <SignForm mode="sign-in" message={MESSAGES.get(why)} />;
}
