//! Writes log lines to standard error from a thread of its own.
//!
//! A write to a pipe that nobody reads blocks, once the pipe is full (64 KiB on Linux, some hundred lines). A thread
//! that serves requests must never wait for that: the whole server would stop, and would not even react to SIGTERM. So
//! lines go into a buffer of [`MAX_BUFFER`] bytes, and those that find it full are dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// About 30,000 lines.
const MAX_BUFFER: usize = 8 * 1024 * 1024;
/// The size that an empty buffer keeps.
const KEPT_BUFFER: usize = 64 * 1024;
/// How long the end of the program waits for the last lines to be read.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(1);

static STANDARD_ERROR: OnceLock<LogWriter> = OnceLock::new();

/// The number of lines that were dropped since the start.
pub(crate) fn dropped() -> u64 {
    STANDARD_ERROR.get().map_or(0, |writer| writer.dropped.load(Relaxed))
}

/// Waits until all lines are written, but no longer than [`LAST_LINES`].
pub(crate) fn flush() {
    if let Some(writer) = STANDARD_ERROR.get() {
        writer.flush(LAST_LINES);
    }
}

/// Starts the thread that writes to standard error. Called once.
///
/// # Errors
///
/// The thread cannot be started.
pub(crate) fn start() -> io::Result<&'static LogWriter> {
    let writer = STANDARD_ERROR.get_or_init(|| LogWriter::new(MAX_BUFFER));
    thread::Builder::new().name("log".to_owned()).spawn(|| writer.write_all_to(|| io::stderr().lock(), tell))?;
    Ok(writer)
}

fn tell(lines: u64) {
    tracing::warn!(lines, "log lines were dropped, since standard error was not read in time");
}

/// Lines that wait to be written.
#[derive(Debug)]
pub(crate) struct LogWriter {
    max_buffer: usize,
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Whether lines that are no longer in `lines` are being written.
    is_writing: bool,
    /// How many lines were dropped since that was last told.
    untold: u64,
}

impl LogWriter {
    fn new(max_buffer: usize) -> Self {
        Self { max_buffer, state: Mutex::default(), changed: Condvar::new(), dropped: AtomicU64::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, or drops it if there is no room for it.
    fn add(&self, line: &[u8]) {
        let mut state = self.state();
        if state.lines.len() + line.len() > self.max_buffer {
            self.drop_lines(&mut state, 1);
            return;
        }
        let was_empty = state.lines.is_empty();
        state.lines.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.changed.notify_all();
        }
    }

    fn drop_lines(&self, state: &mut State, count: u64) {
        state.untold += count;
        self.dropped.fetch_add(count, Relaxed);
    }

    /// Writes lines for ever. When lines were dropped and there is room again, `tell` gets their number.
    fn write_all_to<W: Write>(&self, open: impl Fn() -> W, tell: impl Fn(u64)) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.state();
            while state.lines.is_empty() {
                state.is_writing = false;
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.is_writing = true;
            std::mem::swap(&mut state.lines, &mut lines);
            drop(state);

            let unwritten = write_all(open(), &lines).map_or_else(|written| count_lines(&lines[written..]), |()| 0);
            lines.clear();
            lines.shrink_to(KEPT_BUFFER);
            let mut state = self.state();
            if unwritten > 0 {
                // Nobody will read them. Later lines may be written again, for example if a disk was full.
                self.drop_lines(&mut state, unwritten);
                continue;
            }
            let dropped = std::mem::take(&mut state.untold);
            drop(state);
            if dropped > 0 {
                tell(dropped);
            }
        }
    }

    /// Waits until all lines are written, but no longer than `limit`.
    fn flush(&self, limit: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        // Whether or not the time has passed, there is nothing else to do.
        drop(self.changed.wait_timeout_while(self.state(), limit, is_busy));
    }
}

/// Writes all bytes. The error is the number of bytes that were written.
fn write_all(mut to: impl Write, bytes: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return Err(written),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A program that shares this standard error has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(20)),
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

impl<'a> MakeWriter<'a> for &'static LogWriter {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter(self)
    }
}

/// Writes one event, which `tracing_subscriber` writes as a whole.
pub(crate) struct LineWriter(&'static LogWriter);

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A pipe of which a test takes the pieces.
    struct Pipe(mpsc::SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A writer, its pipe, and what it tells.
    fn writer() -> (&'static LogWriter, mpsc::Receiver<Vec<u8>>, mpsc::Receiver<u64>) {
        let writer: &LogWriter = Box::leak(Box::new(LogWriter::new(100)));
        let ((sender, pipe), (tell, told)) = (mpsc::sync_channel(0), mpsc::channel());
        thread::spawn(move || {
            writer.write_all_to(
                || Pipe(sender.clone()),
                |lines| {
                    let _ = tell.send(lines);
                },
            );
        });
        (writer, pipe, told)
    }

    fn add(writer: &'static LogWriter, line: &str) {
        writer.make_writer().write_all(line.as_bytes()).expect("it never fails");
    }

    #[test]
    fn lines_are_written_in_order_and_a_full_buffer_drops_and_counts_them() {
        let (writer, pipe, told) = writer();
        add(writer, "first\n");
        // The thread has taken it, and waits for its reader.
        while !writer.state().lines.is_empty() {
            thread::yield_now();
        }
        for number in 10..40 {
            add(writer, &format!("line {number}\n"));
        }
        let dropped = writer.dropped.load(Relaxed);
        assert_eq!(dropped, 30 - 100 / 8);
        let mut text = String::new();
        while !text.contains("line 21\n") {
            text.push_str(std::str::from_utf8(&pipe.recv().expect("a writer")).expect("text"));
        }
        let expected = (10..22).map(|number| format!("line {number}\n")).collect::<Vec<_>>().concat();
        assert_eq!(text, format!("first\n{expected}"));
        writer.flush(LAST_LINES);
        assert_eq!((told.try_iter().collect(), writer.dropped.load(Relaxed)), (vec![dropped], dropped));
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_slow_or_gone() {
        let (writer, pipe, _told) = writer();
        add(writer, "one\n");
        let begun = std::time::Instant::now();
        writer.flush(Duration::from_millis(50));
        assert!(begun.elapsed() >= Duration::from_millis(50) && begun.elapsed() < Duration::from_secs(10));
        drop(pipe);
        writer.flush(Duration::from_secs(30));
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(writer.dropped.load(Relaxed), 1);
        add(writer, "two\nlines\n");
        writer.flush(Duration::from_secs(30));
        assert_eq!(writer.dropped.load(Relaxed), 3);
    }
}
