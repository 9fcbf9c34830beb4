//! Metrics of the process, with the standard names of Prometheus.

use std::sync::OnceLock;

use todo_core::clock::{Clock as _, SystemClock, Timestamp};

use super::text::Text;

static START: OnceLock<Timestamp> = OnceLock::new();

/// Records the start of the process. Call this first in the program.
pub(crate) fn started() {
    START.get_or_init(|| SystemClock.now());
}

pub(super) fn render(text: &mut Text) {
    let start = *START.get_or_init(|| SystemClock.now());
    let name = "process_start_time_seconds";
    text.family(name, "gauge", "Start time of the process, in seconds since 1970.");
    text.sample(name, &[], start.unix_seconds());
    #[cfg(target_os = "linux")]
    linux(text);
}

#[cfg(target_os = "linux")]
fn linux(text: &mut Text) {
    use std::fs;

    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        text.family("process_max_fds", "gauge", "Maximum number of open files.");
        text.sample("process_max_fds", &[], limit);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        text.family("process_open_fds", "gauge", "Number of open files, including connections.");
        // One of them is the directory that is being read.
        text.sample("process_open_fds", &[], entries.count().saturating_sub(1));
    }
    let Some(stat) = fs::read_to_string("/proc/self/stat").ok() else { return };
    // The name of the program comes first, in parentheses, and may contain any character.
    let Some((_, fields)) = stat.rsplit_once(')') else { return };
    let fields: Vec<u64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    // The first of these is field 3 of proc_pid_stat(5).
    let &[_, _, _, _, _, _, _, _, _, _, _, user, system, _, _, _, _, _, _, _, virtual_bytes, pages, ..] = &fields[..]
    else {
        return;
    };
    let (ticks, page) = (rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64);
    let name = "process_cpu_seconds_total";
    text.family(name, "counter", "Processor time of the process.");
    #[expect(clippy::cast_precision_loss, reason = "seconds of a process are far below 2^52")]
    text.sample(name, &[], (user + system) as f64 / ticks as f64);
    text.family("process_resident_memory_bytes", "gauge", "Resident memory.");
    text.sample("process_resident_memory_bytes", &[], pages * page);
    text.family("process_virtual_memory_bytes", "gauge", "Virtual memory.");
    text.sample("process_virtual_memory_bytes", &[], virtual_bytes);
}
