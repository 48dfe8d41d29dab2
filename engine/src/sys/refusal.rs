//! Why the system refuses io_uring: errors by name, and what can be done.

use core::fmt;

/// An error number of opening a ring, as text of one line.
pub(super) struct UringRefusal(pub(super) i32);

impl fmt::Display for UringRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring cannot be opened ({})", Errno(self.0))?;
        match remedy(self.0) {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

/// An error number with its name, where it is one of those that rings are refused with.
pub(super) struct Errno(pub(super) i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match known(self.0) {
            Some((name, _)) => write!(f, "errno {}, {name}", self.0),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// What can be done about it.
pub(super) fn remedy(errno: i32) -> Option<&'static str> {
    known(errno).map(|(_, remedy)| remedy)
}

/// Name and remedy.
const fn known(errno: i32) -> Option<(&'static str, &'static str)> {
    Some(match errno {
        libc::EPERM => (
            "EPERM",
            "the sysctl kernel.io_uring_disabled or a seccomp filter (containers, Android) forbids it: set the one to 0, let the other pass io_uring_setup, io_uring_enter and io_uring_register",
        ),
        libc::EACCES => {
            ("EACCES", "a security module (SELinux, AppArmor) forbids it: allow it there")
        }
        libc::ENOSYS => (
            "ENOSYS",
            "the kernel has none: take Linux 5.6 or later; emulators and sandboxes may have none at all",
        ),
        libc::ENOMEM => ("ENOMEM", "raise the limit of locked memory (ulimit -l), or free memory"),
        libc::EMFILE => ("EMFILE", "too many files are open: raise their limit (ulimit -n)"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn known_errors_come_with_name_and_remedy_and_fit_the_border() {
        for (errno, name, hint) in [
            (libc::EPERM, "EPERM", "kernel.io_uring_disabled"),
            (libc::EPERM, "EPERM", "seccomp"),
            (libc::EACCES, "EACCES", "SELinux"),
            (libc::ENOSYS, "ENOSYS", "5.6"),
            (libc::ENOMEM, "ENOMEM", "ulimit -l"),
            (libc::EMFILE, "EMFILE", "ulimit -n"),
        ] {
            let told = UringRefusal(errno).to_string();
            assert!(told.contains(&std::format!("(errno {errno}, {name}): ")), "{told}");
            assert!(told.contains(hint), "{told}");
            // what `lnp_last_error` keeps
            assert!(told.len() <= 240, "{} bytes: {told}", told.len());
        }
        assert_eq!(UringRefusal(22).to_string(), "io_uring cannot be opened (errno 22)");
    }
}
