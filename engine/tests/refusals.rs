//! A system that refuses what the engine asks for: no ring (seccomp, as containers and Android have it;
//! `kernel.io_uring_disabled` gives the same error), no locked memory. What is set here holds for a
//! thread, so each test has its own.

#[path = "../../format/tests/common/mod.rs"]
mod common;

mod back_ends;

use std::ffi::CString;

use back_ends::on_disk;
use common::Recipe;
use lnp_engine::sys::{BackEnd, BackEndChoice, DirectFile, OpenError, Polling, RingKind};
use lnp_engine::{Config, open_engine, required_bytes};
use lnp_format::Pack;

/// From now on a system call of this thread fails with `errno`.
fn refuse(call: libc::c_long, errno: u32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, number),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program and its steps live through the call.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Opens an engine and reads every bundle; how it reads, or why it cannot be opened.
fn read_all(
    path: &CString,
    image: &[u8],
    recipe: &Recipe,
    choice: BackEndChoice,
) -> Result<BackEnd, OpenError> {
    let file = DirectFile::open(path, false).unwrap();
    let pack = Pack::parse(image, file.bytes()).unwrap();
    let config = Config { verify_reads: true, ..Config::new(&pack) };
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let mut engine = open_engine(&file, pack, &config, &mut memory, choice)?;
    let active: Vec<u32> = (0..recipe.shape.neurons).collect();
    let mut seen = 0;
    for layer in 0..recipe.shape.layers {
        let fetched = engine.fetch(layer, &active, |neuron, bundle| {
            assert_eq!(bundle, recipe.bundle(layer, neuron));
            seen += 1;
            Ok(())
        });
        fetched.unwrap();
    }
    assert_eq!(seen, recipe.shape.layers * recipe.shape.neurons);
    Ok(engine.queue().back_end().clone())
}

/// Every way to insist on io_uring.
fn insisting() -> impl Iterator<Item = BackEndChoice> {
    let over = RingKind::ALL.iter().map(|ring| BackEndChoice::UringOver(*ring));
    over.chain([BackEndChoice::Uring])
}

fn pack() -> (Recipe, Vec<u8>) {
    let recipe = Recipe::placeholder(2, 300, 4096);
    let image = recipe.build();
    (recipe, image)
}

#[test]
fn without_a_ring_reads_are_plain_and_it_says_why() {
    let (recipe, image) = pack();
    let (_disk, path) = on_disk(&image);
    for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM, libc::EMFILE] {
        let refused = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                refuse(libc::SYS_io_uring_setup, errno as u32);
                for choice in insisting() {
                    let asked = read_all(&path, &image, &recipe, choice);
                    assert_eq!(asked, Err(OpenError::Uring { errno }), "{choice:?}");
                }
                read_all(&path, &image, &recipe, BackEndChoice::Auto).unwrap()
            });
            thread.join().unwrap()
        });
        assert_eq!(refused, BackEnd::PreadWithoutUring(errno));
        // by number, name and remedy, and the same where it was insisted on
        let told = refused.to_string();
        let why = OpenError::Uring { errno }.to_string();
        assert!(told.starts_with("pread, because ") && told.ends_with(&why), "{told}");
        let (name, remedy) = match errno {
            libc::EPERM => ("EPERM", "kernel.io_uring_disabled or a seccomp filter"),
            libc::ENOSYS => ("ENOSYS", "Linux 5.6 or later"),
            libc::ENOMEM => ("ENOMEM", "ulimit -l"),
            _ => ("EMFILE", "ulimit -n"),
        };
        assert!(why.contains(&format!("errno {errno}, {name}")) && why.contains(remedy), "{why}");
    }
}

#[test]
fn a_ring_that_takes_no_registrations_is_refused_or_told() {
    let (recipe, image) = pack();
    let (_disk, path) = on_disk(&image);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            refuse(libc::SYS_io_uring_register, libc::EACCES as u32);
            for choice in insisting() {
                let asked = read_all(&path, &image, &recipe, choice);
                let refused =
                    matches!(asked, Err(OpenError::Uring { errno: libc::EACCES | libc::ENOSYS }));
                assert!(refused, "{choice:?}: {asked:?}");
            }
            let found = read_all(&path, &image, &recipe, BackEndChoice::Auto).unwrap();
            assert!(
                matches!(found, BackEnd::PreadWithoutUring(libc::EACCES | libc::ENOSYS)),
                "{found}"
            );
        });
    });
}

/// Gives up the right to lock any amount of memory, for this thread, and the amount, for the process.
fn lock_no_memory() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [0_u32; 6];
    // SAFETY: header and sets are as version 3 has them, and live through the call.
    let dropped = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    assert_eq!(dropped, 0);
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit lives through the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
}

#[test]
fn memory_that_cannot_be_locked_is_read_into_all_the_same() {
    let (recipe, image) = pack();
    let (_disk, path) = on_disk(&image);
    let before = read_all(&path, &image, &recipe, BackEndChoice::Auto).unwrap();
    let BackEnd::Uring { polling: Polling::None, unregistered: None, .. } = before else {
        return common::skipped(&format!("no io_uring with locked memory here: {before}"));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lock_no_memory();
            for choice in insisting().chain([BackEndChoice::Auto]) {
                match read_all(&path, &image, &recipe, choice) {
                    Ok(found @ BackEnd::Uring { unregistered: Some(libc::ENOMEM), .. }) => {
                        assert!(found.to_string().contains("ulimit -l"), "{found}");
                    }
                    // kernels before 5.12 count the ring itself
                    Ok(BackEnd::PreadWithoutUring(libc::ENOMEM))
                    | Err(OpenError::Uring { errno: libc::ENOMEM }) => {}
                    found => panic!("{choice:?}: {found:?}"),
                }
            }
        });
    });
}
