//! A forked child has none of its parent's rings, and the parent reads on.

#[path = "../../format/tests/common/mod.rs"]
mod common;

mod back_ends;

use back_ends::{back_ends, on_disk};
use common::Recipe;
use lnp_engine::arena::{Arena, Staging, StagingMemory};
use lnp_engine::queue::{Read, ReadQueue, drain};
use lnp_engine::sys::{BackEndChoice, DeviceQueue, DirectFile};

/// Mappings of rings that this process has, by system calls alone: a child of a process with several
/// threads may do no more.
fn rings_mapped() -> i32 {
    // SAFETY: the path is a C string that lives through the call.
    let maps = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY) };
    if maps < 0 {
        return 100;
    }
    let name = b"[io_uring]";
    let (mut matched, mut found, mut byte) = (0, 0, 0_u8);
    // SAFETY: `byte` has room for the one byte that is read.
    while unsafe { libc::read(maps, (&raw mut byte).cast(), 1) } == 1 {
        matched = if byte == name[matched] { matched + 1 } else { usize::from(byte == name[0]) };
        if matched == name.len() {
            (matched, found) = (0, found + 1);
        }
    }
    // SAFETY: it was opened above, and nobody else has it.
    unsafe { libc::close(maps) };
    found
}

#[test]
fn a_forked_child_has_no_rings_and_its_parent_reads_on() {
    let image = Recipe::placeholder(1, 100, 4096).build();
    let (_disk, path) = on_disk(&image);
    let file: &'static _ = Box::leak(Box::new(DirectFile::open(&path, false).unwrap()));
    for options in back_ends(&path) {
        let mut memory: &'static mut [u8] = Box::leak(vec![0; 10 * 4096].into_boxed_slice());
        let staging_memory = StagingMemory::of(&mut memory);
        let mut arena = Arena::new(memory);
        let bytes = arena.take_bytes(8 * 4096, 4096).unwrap();
        let mut staging = Staging::new(&mut arena, bytes, 8).unwrap();
        let mut queue = DeviceQueue::open(file, staging_memory, 8, options).unwrap();
        assert!(staging.lay_out([4096; 8].into_iter()));
        for tag in 0..8 {
            let lease = staging.lease(tag as usize).unwrap();
            queue.submit(Read { file_offset: u64::from(tag) * 4096, lease, tag }).unwrap();
        }
        queue.flush();
        let rings = if options == BackEndChoice::Pread.into() { 0 } else { 2 };
        assert_eq!(rings_mapped(), rings, "{options:?}");
        // SAFETY: the child makes system calls and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child, and nothing of its parent with it.
            unsafe { libc::_exit(rings_mapped()) };
        }
        assert!(child > 0, "{}", std::io::Error::last_os_error());
        let mut status = -1;
        // SAFETY: the status lives through the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status), "{options:?}: {status}");
        assert_eq!(libc::WEXITSTATUS(status), 0, "rings that the child has, {options:?}");
        drain(&mut queue).unwrap();
        for tag in 0..8 {
            assert!(*staging.bytes_of(tag).unwrap() == image[tag * 4096..][..4096], "{options:?}");
        }
    }
}
