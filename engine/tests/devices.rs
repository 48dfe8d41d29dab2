//! Reads from other things than a file of an ordinary file system, and from other threads than the
//! one that opened the queue.

#[path = "../../format/tests/common/mod.rs"]
mod common;

mod back_ends;

use std::ffi::CString;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use back_ends::{back_ends, on_disk};
use common::Recipe;
use lnp_engine::arena::{Arena, Staging, StagingMemory};
use lnp_engine::engine::Alone;
use lnp_engine::queue::{Read, ReadQueue, drain};
use lnp_engine::sys::{
    BackEndChoice, DeviceQueue, DirectFile, FileError, Polling, ReadOptions, RingKind,
};
use lnp_engine::{Collapse, Config, open_engine, required_bytes};
use lnp_format::Pack;

/// Every bundle of a pack through every back end.
fn read_everything(path: &CString, recipe: &Recipe, image: &[u8]) {
    let file = DirectFile::open(path, false).unwrap();
    let pack = Pack::parse(image, file.bytes()).unwrap();
    let everything: Vec<u32> = (0..recipe.shape.neurons).collect();
    let some: Vec<u32> = everything.iter().copied().filter(|neuron| neuron % 3 == 0).collect();
    for options in back_ends(path) {
        let config = Config { collapse: Collapse::Off, ..Config::new(&pack) };
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let mut engine = open_engine(&file, pack, &config, &mut memory, options).unwrap();
        for active in [&everything, &some] {
            let mut seen = Vec::new();
            engine
                .fetch(0, active, |neuron, bundle| {
                    assert_eq!(bundle, recipe.bundle(0, neuron), "{options:?}, neuron {neuron}");
                    seen.push(neuron);
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, *active);
        }
    }
}

/// Runs a command; its first line of output, or why there is none.
fn told(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

/// A loop device over a file, detached when dropped.
struct LoopDevice(String);

impl LoopDevice {
    fn over(file: &Path) -> Result<Self, String> {
        let mut attach = Command::new("losetup");
        attach.args(["--find", "--show", "--read-only", "--direct-io=on"]).arg(file);
        told(&mut attach).map(Self)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = told(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

#[test]
fn a_raw_block_device_is_read_like_a_file() {
    let recipe = Recipe::placeholder(1, 500, 4096);
    let image = recipe.build();
    let (disk, _path) = on_disk(&image);
    match LoopDevice::over(disk.path()) {
        Ok(device) => {
            let path = CString::new(device.0.as_str()).unwrap();
            assert_eq!(DirectFile::open(&path, false).unwrap().bytes(), image.len() as u64);
            read_everything(&path, &recipe, &image);
        }
        Err(error) => eprintln!("no block device was read: losetup says {error}"),
    }
}

/// A mounted file system, unmounted when dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = told(Command::new("umount").arg(self.0));
    }
}

#[test]
fn f2fs_is_read_where_the_kernel_has_it() {
    let kernel = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !kernel.lines().any(|line| line.trim() == "f2fs") {
        eprintln!("f2fs was not read: this kernel has none");
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (disk, at) = (folder.path().join("disk"), folder.path().join("mounted"));
    std::fs::create_dir(&at).unwrap();
    std::fs::File::create(&disk).unwrap().set_len(128 << 20).unwrap();
    let made = told(Command::new("mkfs.f2fs").arg(&disk))
        .and_then(|_| told(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&at)));
    if let Err(error) = made {
        eprintln!("f2fs was not read: {error}");
        return;
    }
    let _mounted = Mounted(&at);
    let recipe = Recipe::placeholder(1, 500, 4096);
    let image = recipe.build();
    let pack = at.join("pack.lnp");
    std::fs::write(&pack, &image).unwrap();
    std::fs::File::open(&pack).unwrap().sync_all().unwrap();
    let path = CString::new(pack.to_str().unwrap()).unwrap();
    read_everything(&path, &recipe, &image);
}

/// Memory takes the flag for direct reads, and reads as ever.
#[test]
fn a_file_in_memory_has_no_direct_reads() {
    let folder = "/dev/shm";
    let system = told(Command::new("stat").args(["--file-system", "--format=%T", folder]));
    if system.as_deref() != Ok("tmpfs") {
        eprintln!("no file in memory was read: {folder} is of {system:?}");
        return;
    }
    let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
    file.write_all(&[0; 8192]).unwrap();
    let path = CString::new(file.path().to_str().unwrap()).unwrap();
    assert_eq!(DirectFile::open(&path, false).unwrap_err(), FileError::NoDirectReads);
    assert!(!DirectFile::open(&path, true).unwrap().is_direct());
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    told(Command::new("mkfifo").arg(&pipe)).unwrap();
    for path in [pipe.to_str().unwrap(), "/dev/zero"] {
        let path = CString::new(path).unwrap();
        let error = DirectFile::open(&path, true).unwrap_err();
        assert!(error.to_string().contains("neither a file nor a block device"), "{error}");
    }
}

/// Plain reads are made when they are waited for: one ahead would only make the others wait.
#[test]
fn plain_reads_are_not_made_ahead() {
    let recipe = Recipe::placeholder(2, 100, 4096);
    let image = recipe.build();
    let (_disk, path) = on_disk(&image);
    let file = DirectFile::open(&path, false).unwrap();
    let pack = Pack::parse(&image, file.bytes()).unwrap();
    let prefetch_bytes = Config::staging_bytes_full(&pack).next_multiple_of(4096);
    let config = Config { prefetch_bytes, queue_depth: 64, ..Config::new(&pack) };
    let active: Vec<u32> = (0..100).step_by(3).collect();
    for options in back_ends(&path) {
        let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
        let mut engine = open_engine(&file, pack, &config, &mut memory, options).unwrap();
        engine.session(|session| {
            let ahead = session.prefetch(1, &active).unwrap();
            let pread = options == BackEndChoice::Pread.into();
            assert_eq!(ahead.reads == 0, pread, "{options:?}");
            let mut seen = Vec::new();
            let mut finish = |neuron, _, bundle: &[u8], _: &[u8]| {
                assert_eq!(bundle, recipe.bundle(1, neuron));
                seen.push(neuron);
                Ok(())
            };
            let arrive = |_: u32, _: &[u8], _: &[u8]| Ok(0.0);
            let found = session.fetch(&Alone, 1, &active, arrive, &mut finish).unwrap();
            assert_eq!(found.prefetched, if pread { 0 } else { active.len() as u64 });
            assert_eq!(seen, active);
        });
    }
}

/// A queue is `Send`: it may move while reads are in flight, and the thread it came from may end.
#[test]
fn a_queue_goes_on_in_another_thread() {
    let image = Recipe::placeholder(1, 600, 4096).build();
    let (_disk, path) = on_disk(&image);
    let file: &'static _ = Box::leak(Box::new(DirectFile::open(&path, false).unwrap()));
    for options in back_ends(&path) {
        let mut memory: &'static mut [u8] = Box::leak(vec![0; 66 * 4096].into_boxed_slice());
        let staging_memory = StagingMemory::of(&mut memory);
        let mut arena = Arena::new(memory);
        let bytes = arena.take_bytes(32 * 4096, 4096).unwrap();
        let mut staging = Staging::new(&mut arena, bytes, 32).unwrap();
        let mut queue = DeviceQueue::open(file, staging_memory, 8, options).unwrap();
        for round in 0..20_u32 {
            // each round on a thread of its own, which leaves reads in flight behind
            (queue, staging) = std::thread::spawn(move || {
                drain(&mut queue).unwrap();
                assert!(staging.lay_out([4096; 32].into_iter()));
                for tag in 0..8 {
                    let lease = staging.lease(tag as usize).unwrap();
                    let file_offset = u64::from(round * 8 + tag) * 4096;
                    queue.submit(Read { file_offset, lease, tag }).unwrap();
                }
                queue.flush();
                (queue, staging)
            })
            .join()
            .unwrap();
            // by asking only, and without the thread that submitted
            let mut done = 0;
            while options != BackEndChoice::Pread.into() && done < 8 {
                done += u32::from(queue.poll().is_some_and(|found| found.result.is_ok()));
            }
            drain(&mut queue).unwrap();
            for tag in 0..8_usize {
                let at = (round as usize * 8 + tag) * 4096;
                assert!(*staging.bytes_of(tag).unwrap() == image[at..at + 4096], "{options:?}");
            }
        }
    }
}

/// Asked for what it cannot have, a queue reads all the same, and says why it does not poll.
#[test]
fn polling_that_is_refused_is_told() {
    let image = Recipe::placeholder(1, 10, 4096).build();
    let (_disk, path) = on_disk(&image);
    let taken = back_ends(&path);
    let file: &'static _ = Box::leak(Box::new(DirectFile::open(&path, false).unwrap()));
    let uring = taken.len() > 1;
    let told = |options| {
        let mut memory: &'static mut [u8] = Box::leak(vec![0; 4096].into_boxed_slice());
        let staging = StagingMemory::of(&mut memory);
        DeviceQueue::open(file, staging, 4, options).unwrap().back_end().to_string()
    };
    for polling in [Polling::None, Polling::Completion, Polling::Submission] {
        for ring in RingKind::ALL.iter().filter(|_| uring) {
            let options = ReadOptions { back_end: BackEndChoice::UringOver(*ring), polling };
            let told = told(options);
            assert_eq!(taken.contains(&options), !told.contains("not polled"), "{told}");
        }
        // the one that is taken unless told otherwise
        let told = told(ReadOptions { polling, ..ReadOptions::default() });
        assert!(!uring || told.contains(RingKind::default().name()), "{told}");
        let polls = taken.iter().any(|options| options.polling == polling) && uring;
        assert_eq!(!polls && uring, told.contains("not polled"), "{told}");
    }
}
