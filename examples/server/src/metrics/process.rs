//! The process itself, under the names that Prometheus gives to such metrics.

use std::sync::OnceLock;

use todo_core::clock::{Clock as _, SystemClock, Timestamp};

use super::text::Text;

static START: OnceLock<Timestamp> = OnceLock::new();

/// Notes that the process has begun.
pub(crate) fn begun() {
    START.get_or_init(|| SystemClock.now());
}

pub(super) fn render(text: &mut Text) {
    let start = *START.get_or_init(|| SystemClock.now());
    let name = "process_start_time_seconds";
    text.family(name, "gauge", "When the process began, in seconds since 1970.");
    text.sample(name, &[], start.unix_seconds());
    #[cfg(target_os = "linux")]
    linux(text);
}

#[cfg(target_os = "linux")]
fn linux(text: &mut Text) {
    use std::fs;

    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        text.family("process_max_fds", "gauge", "How many files may be open.");
        text.sample("process_max_fds", &[], limit);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        text.family("process_open_fds", "gauge", "Open files, connections among them.");
        // Without the one that lists them.
        text.sample("process_open_fds", &[], entries.count().saturating_sub(1));
    }
    let Some(stat) = fs::read_to_string("/proc/self/stat").ok() else { return };
    // The name of the program stands before, in parentheses, and may hold anything.
    let Some((_, fields)) = stat.rsplit_once(')') else { return };
    let fields: Vec<u64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    // Counted from the third: see proc_pid_stat(5).
    let &[_, _, _, _, _, _, _, _, _, _, _, user, system, _, _, _, _, _, _, _, virtual_bytes, pages, ..] = &fields[..]
    else {
        return;
    };
    let (ticks, page) = (rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64);
    let name = "process_cpu_seconds_total";
    text.family(name, "counter", "Time on a processor.");
    #[expect(clippy::cast_precision_loss, reason = "seconds of a process are far below 2^52")]
    text.sample(name, &[], (user + system) as f64 / ticks as f64);
    text.family("process_resident_memory_bytes", "gauge", "Memory that is really there.");
    text.sample("process_resident_memory_bytes", &[], pages * page);
    text.family("process_virtual_memory_bytes", "gauge", "Memory that was asked for.");
    text.sample("process_virtual_memory_bytes", &[], virtual_bytes);
}
