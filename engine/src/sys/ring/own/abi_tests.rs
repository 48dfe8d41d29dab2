//! Our account of the interface against the kernel's own header, by the C compiler.

use core::mem::offset_of;
use std::borrow::ToOwned;
use std::format;
use std::process::Command;
use std::string::String;
use std::vec::Vec;

use super::*;

/// (what it is in C, what it is here)
fn told() -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = [
        ("IORING_OP_READ_FIXED", u64::from(OP_READ_FIXED)),
        ("IORING_OP_READ", OP_READ.into()),
        ("IOSQE_FIXED_FILE", FIXED_FILE.into()),
        ("IORING_SETUP_IOPOLL", SETUP_IOPOLL.into()),
        ("IORING_SETUP_SQPOLL", SETUP_SQPOLL.into()),
        ("IORING_SETUP_COOP_TASKRUN", SETUP_COOP_TASKRUN.into()),
        ("IORING_SETUP_TASKRUN_FLAG", SETUP_TASKRUN_FLAG.into()),
        ("IORING_FEAT_SINGLE_MMAP", FEATURE_SINGLE_MMAP.into()),
        ("IORING_FEAT_RW_CUR_POS", FEATURE_RW_CUR_POS.into()),
        ("IORING_UNREGISTER_BUFFERS", UNREGISTER_BUFFERS.into()),
        ("IORING_UNREGISTER_FILES", UNREGISTER_FILES.into()),
        ("IORING_SQ_NEED_WAKEUP", SQ_NEED_WAKEUP.into()),
        ("IORING_SQ_CQ_OVERFLOW", SQ_CQ_OVERFLOW.into()),
        ("IORING_SQ_TASKRUN", SQ_TASKRUN.into()),
        ("IORING_ENTER_GETEVENTS", ENTER_GETEVENTS.into()),
        ("IORING_ENTER_SQ_WAKEUP", ENTER_SQ_WAKEUP.into()),
        ("IORING_ENTER_SQ_WAIT", ENTER_SQ_WAIT.into()),
        ("IORING_REGISTER_BUFFERS", REGISTER_BUFFERS.into()),
        ("IORING_REGISTER_FILES", REGISTER_FILES.into()),
        ("IORING_OFF_SQ_RING", OFFSET_RINGS as u64),
        ("IORING_OFF_SQES", OFFSET_SUBMISSIONS as u64),
        ("sizeof(struct io_uring_params)", size_of::<Params>() as u64),
        ("sizeof(struct io_uring_sqe)", size_of::<Submission>() as u64),
        ("sizeof(struct io_uring_cqe)", size_of::<Completion>() as u64),
        ("sizeof(struct io_sqring_offsets)", size_of::<SubmissionOffsets>() as u64),
        ("sizeof(struct io_cqring_offsets)", size_of::<CompletionOffsets>() as u64),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    macro_rules! fields {
        ($kind:ident, $name:literal, $($field:ident = $theirs:literal),+) => {
            $(all.push((
                format!("offsetof(struct {}, {})", $name, $theirs),
                offset_of!($kind, $field) as u64,
            ));)+
        };
    }
    fields!(SubmissionOffsets, "io_sqring_offsets", head = "head", tail = "tail");
    fields!(SubmissionOffsets, "io_sqring_offsets", flags = "flags", array = "array");
    fields!(CompletionOffsets, "io_cqring_offsets", head = "head", tail = "tail");
    fields!(CompletionOffsets, "io_cqring_offsets", completions = "cqes");
    fields!(Params, "io_uring_params", submissions = "sq_entries", completions = "cq_entries");
    fields!(Params, "io_uring_params", flags = "flags", thread_idle_ms = "sq_thread_idle");
    fields!(Params, "io_uring_params", features = "features", submission_offsets = "sq_off");
    fields!(Params, "io_uring_params", completion_offsets = "cq_off");
    fields!(Submission, "io_uring_sqe", opcode = "opcode", flags = "flags", fd = "fd");
    fields!(Submission, "io_uring_sqe", file_offset = "off", address = "addr", bytes = "len");
    fields!(Submission, "io_uring_sqe", tag = "user_data", buffer = "buf_index");
    fields!(Completion, "io_uring_cqe", tag = "user_data", result = "res", flags = "flags");
    all
}

#[test]
fn the_interface_is_what_the_kernels_header_says() {
    let told = told();
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("abi.c"), folder.path().join("abi"));
    let mut text = String::from(
        "#include <linux/io_uring.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n",
    );
    for (name, _) in &told {
        text += &format!("    printf(\"%llu\\n\", (unsigned long long)({name}));\n");
    }
    std::fs::write(&source, text + "    return 0;\n}\n").unwrap();
    let done = Command::new("cc").arg(&source).arg("-o").arg(&program).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done = Command::new(&program).output().unwrap();
    let found: Vec<u64> =
        String::from_utf8(done.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(found.len(), told.len());
    for ((name, here), there) in told.iter().zip(found) {
        assert_eq!(*here, there, "{name}");
    }
}
