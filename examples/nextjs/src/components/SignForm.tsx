'use client';

import Link from 'next/link';
import { useRef, useState, type FormEvent } from 'react';
import { authClient } from '@/lib/auth-client';
import { Tick, Wordmark } from './icons';

type Props = { mode: 'sign-in' | 'sign-up'; message?: string };

const TEXT = {
  'sign-in': { heading: 'Welcome back', submit: 'Sign in', busy: 'Signing in…', other: 'New here?', link: 'Create an account', href: '/sign-up' },
  'sign-up': { heading: 'Create your account', submit: 'Create account', busy: 'Creating…', other: 'Already have an account?', link: 'Sign in', href: '/sign-in' },
};

type Field = 'name' | 'email' | 'password';
type Failure = { message: string | null; fields: Partial<Record<Field, string>> };

/** What Better Auth's error codes mean for the field they are about. */
const FIELD_OF: Record<string, Field> = {
  USER_ALREADY_EXISTS: 'email',
  USER_ALREADY_EXISTS_USE_ANOTHER_EMAIL: 'email',
  INVALID_EMAIL: 'email',
  PASSWORD_TOO_SHORT: 'password',
  PASSWORD_TOO_LONG: 'password',
};

export function SignForm({ mode, message }: Props) {
  const text = TEXT[mode];
  const signUp = mode === 'sign-up';
  const form = useRef<HTMLFormElement>(null);
  const [busy, setBusy] = useState(false);
  const [visible, setVisible] = useState(false);
  const [failure, setFailure] = useState<Failure | null>(null);

  function fail(message: string | null, fields: Failure['fields'] = {}) {
    setFailure({ message, fields });
    setBusy(false);
    const [field] = Object.keys(fields);
    if (field) form.current?.querySelector<HTMLInputElement>(`[name=${field}]`)?.focus();
  }

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (busy) return;
    const data = new FormData(event.currentTarget);
    const value = (field: Field) => String(data.get(field) ?? '');
    const fields: Failure['fields'] = {};
    if (signUp && value('name').trim() === '') fields.name = 'Please enter your name.';
    if (!/^\S+@\S+$/.test(value('email').trim())) fields.email = 'Please enter your e-mail address.';
    if (value('password') === '') fields.password = 'Please enter your password.';
    else if (signUp && value('password').length < 8) fields.password = 'Please use at least 8 characters.';
    if (Object.keys(fields).length > 0) return fail(null, fields);

    setBusy(true);
    setFailure(null);
    const credentials = { email: value('email').trim(), password: value('password') };
    const call = signUp
      ? authClient.signUp.email({ ...credentials, name: value('name').trim() })
      : authClient.signIn.email(credentials);
    const error = await call.then(
      (result) => result.error,
      () => ({ status: 0, code: undefined, message: undefined }),
    );
    // A real navigation: the page of the signed-in user starts with a fresh memory.
    if (!error) return window.location.replace('/');

    const field = FIELD_OF[error.code ?? ''];
    if (field) return fail(null, { [field]: `${error.message}` });
    if (error.status === 0) return fail('The sign-in service cannot be reached. Please try again in a moment.');
    if (error.code === 'INVALID_EMAIL_OR_PASSWORD') return fail('This e-mail address and password do not belong together.');
    if (error.code === 'INVALID_ORIGIN') return fail('This app expects to be opened at another address (its BETTER_AUTH_URL).');
    fail(error.message ?? `The sign-in service answered with status ${error.status}.`);
  }

  const input = (field: Field) => ({
    id: field,
    name: field,
    readOnly: busy,
    'aria-invalid': failure?.fields[field] ? true : undefined,
    'aria-describedby': failure?.fields[field] ? `${field}-problem` : undefined,
  });
  const problem = (field: Field) =>
    failure?.fields[field] && (
      <p className="field-problem" id={`${field}-problem`}>
        {failure.fields[field]}
      </p>
    );

  return (
    <div className="sign">
      <SignArt />
      <main>
        <Wordmark />
        <div className="sheet sign-card">
          <h1>{text.heading}</h1>
          {message && !failure && (
            <p className="sign-message" role="status">
              {message}
            </p>
          )}
          {/* "post": sent before the script is there, the password must not end up in the address. */}
          <form ref={form} method="post" noValidate aria-busy={busy} onSubmit={submit}>
            {signUp && (
              <div className="field">
                <label htmlFor="name">Name</label>
                <input {...input('name')} autoComplete="name" />
                {problem('name')}
              </div>
            )}
            <div className="field">
              <label htmlFor="email">E-mail</label>
              <input {...input('email')} type="email" autoComplete="username" autoCapitalize="none" spellCheck={false} />
              {problem('email')}
            </div>
            <div className="field">
              <div className="label-row">
                <label htmlFor="password">Password</label>
                <button type="button" className="text-button" aria-pressed={visible} aria-controls="password" onClick={() => setVisible(!visible)}>
                  Show<span className="visually-hidden"> password</span>
                </button>
              </div>
              <input
                {...input('password')}
                type={visible ? 'text' : 'password'}
                autoComplete={signUp ? 'new-password' : 'current-password'}
                autoCapitalize="none"
                spellCheck={false}
              />
              {problem('password')}
              {signUp && !failure?.fields.password && <p className="hint">At least 8 characters.</p>}
            </div>
            {failure?.message && (
              <p className="form-problem" role="alert">
                {failure.message}
              </p>
            )}
            <button type="submit" className="primary wide" aria-disabled={busy}>
              {busy ? text.busy : text.submit}
            </button>
          </form>
        </div>
        <p className="sign-other">
          {text.other} <Link href={text.href}>{text.link}</Link>
        </p>
      </main>
    </div>
  );
}

/** Decoration beside the form, where there is room for it. */
function SignArt() {
  return (
    <div className="sign-art" aria-hidden>
      <p>
        Write it down.
        <br />
        Tick it off.
      </p>
      <ul>
        {['Water the ferns', 'Ring Mum back', 'Book the night train'].map((text) => (
          <li key={text}>
            <span className="check-art">
              <Tick />
            </span>
            <span>{text}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}
