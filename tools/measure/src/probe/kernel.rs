//! What the kernel counts: bytes that were really read from a device, CPU time, and waiting for a core.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// Bytes of a sector in the kernel's statistics, whatever the device has.
const SECTOR_BYTES: u64 = 512;
/// Fields of a device's statistics.
const READ_SECTORS: usize = 2;
const WRITTEN_SECTORS: usize = 6;

/// What has been read so far, as far as the kernel tells; bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// By this process, from any device (`/proc/self/io`): nothing that the page cache answered.
    process: Option<u64>,
    /// From this device, by all processes (`/sys/dev/block/*/stat`).
    device: Option<u64>,
    /// To this device, by all processes.
    written: Option<u64>,
}

impl Counters {
    /// Now; `number` is that of the device (`major:minor`), where it is known.
    pub(super) fn now(number: Option<&str>) -> Self {
        let of_device = |number| fs::read_to_string(format!("/sys/dev/block/{number}/stat")).ok();
        let device = number.and_then(of_device);
        Self {
            process: fs::read_to_string("/proc/self/io").ok().as_deref().and_then(process_bytes),
            device: device.as_deref().and_then(|text| device_bytes(text, READ_SECTORS)),
            written: device.as_deref().and_then(|text| device_bytes(text, WRITTEN_SECTORS)),
        }
    }

    /// Bytes since then: this process's own, else the device's. None where the kernel does not count.
    pub(super) fn since(&self, before: &Self) -> Option<u64> {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        let process = difference(self.process, before.process);
        let device = difference(self.device, before.device);
        // The process's count knows no neighbours.
        process.or(device)
    }

    /// What others read and wrote since then, over what this process read; none where the kernel does not
    /// count either.
    pub(super) fn others_since(&self, before: &Self) -> Option<f64> {
        let since = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        let own = since(self.process, before.process).filter(|own| *own > 0)?;
        let read = since(self.device, before.device)?.saturating_sub(own);
        let written = since(self.written, before.written)?;
        Some((read + written) as f64 / own as f64)
    }
}

fn process_bytes(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("read_bytes:"))?.trim().parse().ok()
}

fn device_bytes(text: &str, field: usize) -> Option<u64> {
    Some(text.split_whitespace().nth(field)?.parse::<u64>().ok()? * SECTOR_BYTES)
}

/// CPU time of this thread, nanoseconds, its system calls included.
pub(super) fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Time that this thread was ready and had no core, nanoseconds; none where the kernel does not tell.
pub(super) fn waited_ns() -> Option<u64> {
    second(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

fn second(text: &str) -> Option<u64> {
    text.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files() {
        let io = "rchar: 8012\nwchar: 0\nsyscr: 9\nread_bytes: 40960\nwrite_bytes: 0\n";
        assert_eq!(process_bytes(io), Some(40960));
        assert_eq!(process_bytes("rchar: 1\n"), None);
        let stat = "  178523 12 9876543 44400 5 6 7 8 0 9 10 0 0 0 0 0 0\n";
        assert_eq!(device_bytes(stat, READ_SECTORS), Some(9_876_543 * 512));
        assert_eq!(device_bytes(stat, WRITTEN_SECTORS), Some(7 * 512));
        assert_eq!(device_bytes("", READ_SECTORS), None);
        assert_eq!(second("812345 6789 12\n"), Some(6789));
        assert_eq!(second("812345\n"), None);
    }

    #[test]
    fn the_process_is_believed_before_the_device() {
        let at = |process, device| Counters { process, device, written: None };
        assert_eq!(at(Some(9), Some(90)).since(&at(Some(4), Some(10))), Some(5));
        assert_eq!(at(Some(4), Some(90)).since(&at(Some(4), Some(10))), Some(0));
        assert_eq!(at(None, Some(90)).since(&at(None, Some(10))), Some(80));
        assert_eq!(at(None, None).since(&at(None, None)), None);
    }

    #[test]
    fn others_are_what_is_not_our_own() {
        let at = |process, device, written| Counters { process, device, written: Some(written) };
        let before = at(Some(100), Some(1000), 50);
        assert_eq!(at(Some(300), Some(1200), 50).others_since(&before), Some(0.0));
        assert_eq!(at(Some(300), Some(1250), 100).others_since(&before), Some(0.5));
        // Our own reads may lie on another device, or not be counted.
        assert_eq!(at(Some(300), Some(1000), 50).others_since(&before), Some(0.0));
        assert_eq!(at(Some(100), Some(1250), 50).others_since(&before), None);
        assert_eq!(at(None, Some(1250), 50).others_since(&before), None);
        assert_eq!(at(Some(300), None, 50).others_since(&before), None);
    }

    #[test]
    fn cpu_time_goes_on() {
        let begin = cpu_ns();
        let mut sum = 0_u64;
        while cpu_ns() < begin + 1_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }
}
