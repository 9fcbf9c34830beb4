/** Drawn here, so that no icon font or package is needed. Decoration only: the control has the name. */
const icon = { width: 20, height: 20, viewBox: '0 0 20 20', fill: 'none', stroke: 'currentColor', strokeWidth: 1.6,
  strokeLinecap: 'round', strokeLinejoin: 'round', 'aria-hidden': true } as const;

export const Tick = ({ className }: { className?: string }) => (
  <svg {...icon} className={className} strokeWidth={2.4}>
    <path d="M4.5 10.8 8.3 14.5 15.5 6" pathLength={1} />
  </svg>
);

export const Pencil = () => (
  <svg {...icon}>
    <path d="m12.6 4.4 3 3M4 16l.9-3.6 8.4-8.4a1.4 1.4 0 0 1 2 0l.7.7a1.4 1.4 0 0 1 0 2l-8.4 8.4z" />
  </svg>
);

export const Bin = () => (
  <svg {...icon}>
    <path d="M4 5.8h12M8 5.5V4h4v1.5M5.6 6l.7 10h7.4l.7-10M8.6 9v4.2M11.4 9v4.2" />
  </svg>
);

export const Cross = () => (
  <svg {...icon}>
    <path d="m5.5 5.5 9 9m0-9-9 9" />
  </svg>
);

export const Wordmark = () => (
  <span className="wordmark">
    <span className="wordmark-tick">
      <Tick />
    </span>
    todo
  </span>
);
