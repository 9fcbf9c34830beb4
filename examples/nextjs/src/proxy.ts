import { NextResponse, type NextRequest } from 'next/server';
import { todoApi } from './lib/settings';

/**
 * The Content Security Policy of every page: scripts carry a fresh nonce, and the page may talk to itself and to the todo
 * API only. The token lives in the page's memory, so no foreign script may run there.
 */
export function proxy(request: NextRequest) {
  const nonce = btoa(crypto.randomUUID());
  const development = process.env.NODE_ENV === 'development';
  const api = new URL(todoApi(), request.nextUrl).origin;
  const policy = [
    "default-src 'self'",
    `script-src 'self' 'nonce-${nonce}' 'strict-dynamic'${development ? " 'unsafe-eval'" : ''}`,
    `style-src 'self' ${development ? "'unsafe-inline'" : `'nonce-${nonce}'`}`,
    `connect-src 'self' ${api}`,
    "img-src 'self' data:",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join('; ');

  const forwarded = new Headers(request.headers);
  forwarded.set('Content-Security-Policy', policy);
  const response = NextResponse.next({ request: { headers: forwarded } });
  response.headers.set('Content-Security-Policy', policy);
  return response;
}

export const config = { matcher: '/((?!api/|_next/static|_next/image|icon.svg).*)' };
