//! CPU time and memory of processes, from Linux's `/proc`.

use std::{fs, io, time::Duration};

/// A line of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    /// Of children that have ended and that the process has waited for.
    ended_ticks: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The name of the program is in parentheses and may contain any character, parentheses too.
        let fields: Vec<_> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            own_ticks: number(11)? + number(12)?,
            ended_ticks: number(13)? + number(14)?,
        })
    }

    fn read(path: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(path).ok()?)
    }
}

fn duration(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

/// The CPU time of all threads of a process, without its children.
#[must_use]
pub fn cpu(process: u32) -> Duration {
    duration(Stat::read(&format!("/proc/{process}/stat")).map_or(0, |stat| stat.own_ticks))
}

/// The CPU time of the calling thread.
#[must_use]
pub fn cpu_of_this_thread() -> Duration {
    duration(Stat::read("/proc/thread-self/stat").map_or(0, |stat| stat.own_ticks))
}

/// The CPU time of a process and its children, including children that have ended.
#[must_use]
pub fn cpu_of_family(process: u32) -> Duration {
    let eldest = Stat::read(&format!("/proc/{process}/stat")).map_or(0, |stat| stat.own_ticks + stat.ended_ticks);
    let children = children(process).into_iter().map(|(_, stat)| stat.own_ticks + stat.ended_ticks);
    duration(eldest + children.sum::<u64>())
}

/// The CPU time that the whole machine has used, including the time that its host took away (steal).
#[must_use]
pub fn cpu_of_machine() -> Duration {
    fs::read_to_string("/proc/stat").map_or(Duration::ZERO, |text| duration(busy_ticks(&text)))
}

/// All but idle and iowait; the time of guests is part of user and nice.
fn busy_ticks(text: &str) -> u64 {
    let fields = text.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1).take(8);
    let ticks = fields.enumerate().filter(|(place, _)| ![3, 4].contains(place));
    ticks.filter_map(|(_, field)| field.parse::<u64>().ok()).sum()
}

fn children(process: u32) -> Vec<(u32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let stats = numbers.filter_map(|number| Some((number, Stat::read(&format!("/proc/{number}/stat"))?)));
    stats.filter(|(_, stat)| stat.parent == process).collect()
}

/// The parent of a process.
///
/// # Errors
///
/// There is no such process.
pub fn parent(process: u32) -> io::Result<u32> {
    let stat = Stat::read(&format!("/proc/{process}/stat"));
    stat.map(|stat| stat.parent).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The maximum resident memory of a process so far, in KiB.
#[must_use]
pub fn peak_kib(process: u32) -> u64 {
    field(&format!("/proc/{process}/status"), "VmHWM:")
}

/// The resident memory of a process, in KiB.
#[must_use]
pub fn resident_kib(process: u32) -> u64 {
    field(&format!("/proc/{process}/status"), "VmRSS:")
}

/// The memory of a process and its children, in KiB. Shared memory counts once (PSS).
#[must_use]
pub fn memory_of_family_kib(process: u32) -> u64 {
    let family = children(process).into_iter().map(|(child, _)| child).chain([process]);
    family.map(|process| field(&format!("/proc/{process}/smaps_rollup"), "Pss:")).sum()
}

fn field(path: &str, name: &str) -> u64 {
    fs::read_to_string(path).map_or(0, |text| value(&text, name))
}

fn value(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{
        process::{self, Command},
        time::Instant,
    };

    use super::*;

    #[test]
    fn the_name_of_a_program_may_contain_parentheses() {
        let line = "42 (a) R 7 (b) S 41 42 42 0 -1 4194304 100 0 0 0 11 22 33 44 20 0 1 0 100 1 1";
        let stat = Stat { parent: 41, own_ticks: 33, ended_ticks: 77 };
        assert_eq!(Stat::parse(line), Some(stat));
        assert_eq!(Stat::parse("42 (a"), None);
    }

    #[test]
    fn fields_are_found_by_their_names() {
        let status = "VmPeak:\t  5000 kB\nVmHWM:\t  4321 kB\nVmRSS:\t  1234 kB\n";
        assert_eq!((value(status, "VmHWM:"), value(status, "VmRSS:"), value(status, "Pss:")), (4321, 1234, 0));
    }

    #[test]
    fn idle_time_is_not_busy_time() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 9 9 9"), 63);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_cpu_time_of_an_ended_child_counts() {
        // Other tests use CPU time of this process meanwhile: it is subtracted, and measured over a longer time.
        let own_before = cpu(process::id());
        let before = cpu_of_family(process::id());
        let status = Command::new("sh").args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]).status();
        assert!(status.unwrap().success());
        let after = cpu_of_family(process::id());
        let own = cpu(process::id()).saturating_sub(own_before);
        assert!(after >= before + own + Duration::from_millis(50), "{after:?}, {before:?}, {own:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn cpu_time_and_memory_are_measured() {
        let (thread, all) = (cpu_of_this_thread(), cpu(process::id()));
        let begun = Instant::now();
        while cpu_of_this_thread() < thread + Duration::from_millis(100) {
            assert!(begun.elapsed() < Duration::from_mins(1), "a busy thread has used no time");
        }
        // The times of a process in user and in kernel mode are whole ticks of 10 ms, rounded down.
        let used = cpu(process::id()).saturating_sub(all);
        assert!(used >= Duration::from_millis(80), "{used:?}");
        assert!(peak_kib(process::id()) >= resident_kib(process::id()) / 2 && resident_kib(process::id()) > 100);
        assert!(memory_of_family_kib(process::id()) > 100);
        assert!(parent(process::id()).is_ok());
    }
}
