import type { NextConfig } from 'next';

// Read by the build and the server alike: nothing is reported to anyone.
process.env.NEXT_TELEMETRY_DISABLED = '1';

const config: NextConfig = {
  poweredByHeader: false,
  // A native module: required at run time, not bundled.
  serverExternalPackages: ['libsql'],
  headers: async () => [
    {
      source: '/:path*',
      headers: [
        { key: 'X-Content-Type-Options', value: 'nosniff' },
        { key: 'Referrer-Policy', value: 'same-origin' },
      ],
    },
    // Better Auth names no cache policy for tokens.
    { source: '/api/auth/token', headers: [{ key: 'Cache-Control', value: 'no-store' }] },
  ],
};

export default config;
