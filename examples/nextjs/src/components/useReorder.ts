'use client';

import { useEffect, useRef, useState, type KeyboardEvent, type PointerEvent } from 'react';
import type { Task } from '@/lib/todo-api';

/** A row that is being moved: from which place to which one, and for the pointer how far it is from where it was. */
type Moving = { id: string; by: 'pointer' | 'keyboard'; from: number; to: number; dy: number };

type Options = { tasks: Task[]; onMove: (task: Task, to: number) => void; say: (text: string) => void };

const EDGE_PX = 72;
const SCROLL_PX = 12;

/**
 * Moves a row of the list, by the pointer or by the keyboard. Until it is dropped, the rows are only shifted to where they would be:
 * the document stays as it is, so the handle keeps the focus and the pointer.
 */
export function useReorder({ tasks, onMove, say }: Options) {
  const list = useRef<HTMLUListElement>(null);
  const rows = useRef<{ top: number; height: number }[]>([]);
  const pointer = useRef({ startY: 0, clientY: 0 });
  const [moving, setMoving] = useState<Moving | null>(null);

  function take(id: string, by: Moving['by']) {
    rows.current = [...list.current!.children].map((row) => {
      const { top, height } = row.getBoundingClientRect();
      return { top: top + window.scrollY, height };
    });
    const from = tasks.findIndex((task) => task.id === id);
    setMoving({ id, by, from, to: from, dy: 0 });
  }

  function drop() {
    if (!moving) return;
    const task = tasks[moving.from]!;
    setMoving(null);
    if (moving.to !== moving.from) onMove(task, moving.to);
    else if (moving.by === 'keyboard') say(`“${task.title}” stays at position ${moving.to + 1}.`);
  }

  function cancel() {
    if (!moving) return;
    setMoving(null);
    say(`“${tasks[moving.from]!.title}” is back at position ${moving.from + 1}.`);
  }

  // The list has changed under the row, for example by a page that was loaded: where it was is not known any more.
  const ids = tasks.map((task) => task.id).join();
  useEffect(() => setMoving(null), [ids]);

  function follow() {
    setMoving((old) => {
      if (old?.by !== 'pointer') return old;
      const dy = pointer.current.clientY + window.scrollY - pointer.current.startY;
      const own = rows.current[old.from]!;
      const middle = own.top + own.height / 2 + dy;
      const above = rows.current.filter((row, at) => at < old.from && row.top + row.height / 2 > middle).length;
      const below = rows.current.filter((row, at) => at > old.from && row.top + row.height / 2 < middle).length;
      return { ...old, dy, to: old.from - above + below };
    });
  }

  // Near the edge of the window, the page scrolls on.
  const dragging = moving?.by === 'pointer';
  useEffect(() => {
    if (!dragging) return;
    let frame = requestAnimationFrame(function scroll() {
      const { clientY } = pointer.current;
      const step = clientY < EDGE_PX ? -SCROLL_PX : clientY > window.innerHeight - EDGE_PX ? SCROLL_PX : 0;
      const before = window.scrollY;
      if (step !== 0) window.scrollBy(0, step);
      if (window.scrollY !== before) follow();
      frame = requestAnimationFrame(scroll);
    });
    return () => cancelAnimationFrame(frame);
  }, [dragging]);

  function onKeyDown(event: KeyboardEvent) {
    if (!moving) return;
    if (event.key === 'Escape') {
      event.preventDefault();
      cancel();
      return;
    }
    const last = tasks.length - 1;
    const to = { ArrowUp: moving.to - 1, ArrowDown: moving.to + 1, Home: 0, End: last }[event.key];
    if (to === undefined || moving.by !== 'keyboard') return;
    event.preventDefault();
    if (to < 0 || to > last) return;
    setMoving({ ...moving, to });
    say(`Position ${to + 1} of ${tasks.length}.`);
  }

  /** What the button with which a row is moved needs. */
  const handle = (task: Task) => ({
    'aria-pressed': moving?.id === task.id,
    // Without a pointer: by a key, or by a screen reader.
    onClick(event: { detail: number }) {
      if (event.detail !== 0) return;
      if (moving) return drop();
      take(task.id, 'keyboard');
      const at = tasks.findIndex(({ id }) => id === task.id) + 1;
      say(`“${task.title}” is picked up, at position ${at} of ${tasks.length}.`);
    },
    onKeyDown,
    onBlur: () => moving?.by === 'keyboard' && drop(),
    onPointerDown(event: PointerEvent<HTMLElement>) {
      if (event.button !== 0 || moving) return;
      event.currentTarget.setPointerCapture(event.pointerId);
      pointer.current = { startY: event.clientY + window.scrollY, clientY: event.clientY };
      take(task.id, 'pointer');
    },
    onPointerMove(event: PointerEvent) {
      if (!dragging) return;
      pointer.current.clientY = event.clientY;
      follow();
    },
    onPointerUp: () => dragging && drop(),
    onPointerCancel: () => dragging && cancel(),
  });

  /** How far the row at this place is shifted, in pixels. */
  function shiftOf(at: number): number {
    if (!moving) return 0;
    const { from, to } = moving;
    const height = rows.current[from]!.height;
    if (at === from) return moving.by === 'pointer' ? moving.dy : distance(rows.current, from, to);
    if (at > from && at <= to) return -height;
    if (at < from && at >= to) return height;
    return 0;
  }

  return { list, handle, shiftOf, movingId: moving?.id ?? null };
}

/** From a row's place to another one: the heights of the rows in between. */
function distance(rows: { height: number }[], from: number, to: number): number {
  const between = to > from ? rows.slice(from + 1, to + 1) : rows.slice(to, from);
  const sum = between.reduce((height, row) => height + row.height, 0);
  return to > from ? sum : -sum;
}
