import type { Metadata } from 'next';
import { redirect } from 'next/navigation';
import { SignForm } from '@/components/SignForm';
import { currentUser } from '@/lib/auth';

export const metadata: Metadata = { title: 'Create account' };

export default async function SignUp() {
  if (await currentUser()) redirect('/');
  return <SignForm mode="sign-up" />;
}
