//! The ways of reading that this machine offers, for tests that try them all.
#![allow(dead_code)] // each test file uses a part

use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use lnp_engine::arena::StagingMemory;
use lnp_engine::sys::{
    BackEnd, BackEndChoice, DeviceQueue, DirectFile, OpenError, Polling, ReadOptions, RingKind,
};

use super::common;

/// A pack on a real disk. The folder of the tests' build: temporary folders are often tmpfs,
/// which has no direct reads.
pub(crate) fn on_disk(file: &[u8]) -> (tempfile::NamedTempFile, CString) {
    let mut disk = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    disk.write_all(file).unwrap();
    disk.as_file().sync_all().unwrap();
    let path = CString::new(disk.path().as_os_str().as_bytes()).unwrap();
    (disk, path)
}

/// The back ends of this machine: each ring with each way of polling that the file's device takes (the
/// others are told), and pread. A machine without io_uring is said to skip it.
pub(crate) fn back_ends(path: &CString) -> Vec<ReadOptions> {
    let file: &'static _ = Box::leak(Box::new(DirectFile::open(path, false).unwrap()));
    let mut found: Vec<ReadOptions> =
        RingKind::ALL.iter().flat_map(|ring| over_ring(file, *ring)).collect();
    found.push(BackEndChoice::Pread.into());
    found
}

/// The ways of polling that the device takes over a ring.
fn over_ring(file: &'static DirectFile, ring: RingKind) -> Vec<ReadOptions> {
    let mut found = Vec::new();
    for polling in [Polling::None, Polling::Completion, Polling::Submission] {
        let mut memory: &'static mut [u8] = Box::leak(vec![0; 4096].into_boxed_slice());
        let staging = StagingMemory::of(&mut memory);
        let options = ReadOptions { back_end: BackEndChoice::UringOver(ring), polling };
        match DeviceQueue::open(file, staging, 1, options) {
            Err(OpenError::Uring { errno }) => {
                common::skipped(&format!("no io_uring here (errno {errno})"));
                break;
            }
            Err(error) => panic!("{error}"),
            Ok(queue) => {
                let BackEnd::Uring { ring: over, polling: used, polling_refused, .. } =
                    *queue.back_end()
                else {
                    panic!("asked for io_uring, got {}", queue.back_end());
                };
                assert_eq!(over, ring);
                assert!(queue.back_end().to_string().contains(ring.name()));
                // in use, or refused with a reason
                assert_eq!(used == polling, polling_refused.is_none());
                match polling_refused {
                    None => found.push(options),
                    Some(errno) => {
                        assert_eq!(used, Polling::None);
                        eprintln!("{} polling was refused (errno {errno})", polling.name());
                    }
                }
            }
        }
    }
    found
}
