//! What processes have used, as Linux tells it in `/proc`.

use std::{fs, io, time::Duration};

/// A line of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    /// Of children that have ended and were waited for.
    ended_ticks: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The name of the program stands in parentheses, and may hold anything, parentheses too.
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

/// The processor time of a process, all of its threads together. Its children do not count.
#[must_use]
pub fn cpu(process: u32) -> Duration {
    duration(Stat::read(&format!("/proc/{process}/stat")).map_or(0, |stat| stat.own_ticks))
}

/// The processor time of the thread that asks.
#[must_use]
pub fn cpu_of_this_thread() -> Duration {
    duration(Stat::read("/proc/thread-self/stat").map_or(0, |stat| stat.own_ticks))
}

/// The processor time of a process and its children, of those that have ended too.
#[must_use]
pub fn cpu_of_family(process: u32) -> Duration {
    let eldest = Stat::read(&format!("/proc/{process}/stat")).map_or(0, |stat| stat.own_ticks + stat.ended_ticks);
    let children = children(process).into_iter().map(|(_, stat)| stat.own_ticks + stat.ended_ticks);
    duration(eldest + children.sum::<u64>())
}

/// The processor time that the whole machine has used, and what its host took away from it.
#[must_use]
pub fn cpu_of_machine() -> Duration {
    fs::read_to_string("/proc/stat").map_or(Duration::ZERO, |text| duration(busy_ticks(&text)))
}

/// All but idle and waiting for disks; time of guests is part of the first two.
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

/// The process that started this one.
///
/// # Errors
///
/// There is no such process (any more).
pub fn parent(process: u32) -> io::Result<u32> {
    let stat = Stat::read(&format!("/proc/{process}/stat"));
    stat.map(|stat| stat.parent).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// What a process had in memory (resident) at the time when it had most, in KiB.
#[must_use]
pub fn peak_kib(process: u32) -> u64 {
    field(&format!("/proc/{process}/status"), "VmHWM:")
}

/// What a process has in memory (resident) now, in KiB.
#[must_use]
pub fn resident_kib(process: u32) -> u64 {
    field(&format!("/proc/{process}/status"), "VmRSS:")
}

/// What a process and its children have in memory, in KiB; what they share counts once (Pss).
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
    fn a_name_with_parentheses_confuses_nobody() {
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
    fn an_idle_machine_is_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 9 9 9"), 63);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_an_ended_child_has_used_still_counts() {
        // Other tests use this process meanwhile, so its own time does not count, and is read so that it seems more.
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
    fn work_is_seen_and_memory_is_there() {
        let (thread, all) = (cpu_of_this_thread(), cpu(process::id()));
        let begun = Instant::now();
        while cpu_of_this_thread() < thread + Duration::from_millis(30) {
            assert!(begun.elapsed() < Duration::from_mins(1), "a busy thread uses no time");
        }
        assert!(cpu(process::id()) >= all + Duration::from_millis(30));
        assert!(peak_kib(process::id()) >= resident_kib(process::id()) / 2 && resident_kib(process::id()) > 100);
        assert!(memory_of_family_kib(process::id()) > 100);
        assert!(parent(process::id()).is_ok());
    }
}
