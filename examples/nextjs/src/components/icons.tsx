/** Drawn here, so that no icon font or package is needed. Decoration only: the control has the name. */
const icon = { width: 20, height: 20, viewBox: '0 0 20 20', fill: 'none', stroke: 'currentColor', strokeWidth: 1.6,
  strokeLinecap: 'round', strokeLinejoin: 'round', 'aria-hidden': true } as const;

const drawn = (path: string) =>
  function Icon() {
    return (
      <svg {...icon}>
        <path d={path} />
      </svg>
    );
  };

export const Tick = ({ className }: { className?: string }) => (
  <svg {...icon} className={className} strokeWidth={2.4}>
    <path d="M4.5 10.8 8.3 14.5 15.5 6" pathLength={1} />
  </svg>
);

export const Pencil = drawn('m12.6 4.4 3 3M4 16l.9-3.6 8.4-8.4a1.4 1.4 0 0 1 2 0l.7.7a1.4 1.4 0 0 1 0 2l-8.4 8.4z');
export const Bin = drawn('M4 5.8h12M8 5.5V4h4v1.5M5.6 6l.7 10h7.4l.7-10M8.6 9v4.2M11.4 9v4.2');
export const Cross = drawn('m5.5 5.5 9 9m0-9-9 9');
export const Plus = drawn('M10 4.5v11M4.5 10h11');
export const Inbox = drawn('M3.5 11.5 5.6 5h8.8l2.1 6.5V15h-13zM3.5 11.5h4l.8 1.8h3.4l.8-1.8h4');
export const Calendar = drawn('M4 5.5h12v10.5H4zM4 8.7h12M7 3.6v3M13 3.6v3');
export const Clock = drawn('M10 3.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM10 6.5V10l2.4 1.6');
export const Lines = drawn('M7.5 5.5h9M7.5 10h9M7.5 14.5h9M3.7 5.5h.1M3.7 10h.1M3.7 14.5h.1');
export const Flag = drawn('M5 17V3.8M5 4.3h9.6l-2 3.3 2 3.3H5');
export const Glass = drawn('M8.8 4a4.8 4.8 0 1 1 0 9.6 4.8 4.8 0 0 1 0-9.6zM12.4 12.4l4 4');
export const Grip = drawn('M7.5 5h.1M12.5 5h.1M7.5 10h.1M12.5 10h.1M7.5 15h.1M12.5 15h.1');
export const Chevron = drawn('m5.5 8 4.5 4.5L14.5 8');
export const Undo = drawn('M7 4.5 3.8 7.7 7 10.9M4 7.7h7.3a4.2 4.2 0 0 1 0 8.4H8');

export const Wordmark = () => (
  <span className="wordmark">
    <span className="wordmark-tick">
      <Tick />
    </span>
    todo
  </span>
);
