//! Where a file lies: its device and file system, as the kernel names them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::profile::ProbedPlace;

impl ProbedPlace {
    /// Where a file or block device lies; what cannot be told is absent.
    pub fn of(path: &Path) -> Self {
        let Ok(facts) = fs::metadata(path) else { return Self::default() };
        if facts.file_type().is_block_device() {
            return Self::default().on(Some(number_of(facts.rdev())));
        }
        let mount = path.canonicalize().ok().and_then(|path| {
            mount_of(&path, &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
        });
        let Some(mount) = mount else { return Self::default().on(Some(number_of(facts.dev()))) };
        // Some file systems (btrfs, overlays) have a number of their own; their source is what counts.
        let source = fs::metadata(&mount.source).ok();
        let source = source.filter(|source| source.file_type().is_block_device());
        let source = source.map(|source| number_of(source.rdev()));
        let number = Some(number_of(facts.dev())).filter(|number| is_known(number)).or(source);
        Self {
            file_system: Some(mount.file_system),
            mount_options: Some(mount.options),
            ..Self::default()
        }
        .on(number)
    }

    fn on(self, number: Option<String>) -> Self {
        let number = number.filter(|number| is_known(number));
        let folder = number.as_ref().map(|number| format!("/sys/dev/block/{number}"));
        let text = |name: &str| {
            let text = fs::read_to_string(format!("{}/{name}", folder.as_ref()?)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let name = text("uevent").and_then(|text| {
            text.lines().find_map(|line| Some(line.strip_prefix("DEVNAME=")?.to_owned()))
        });
        // Of a partition, the disk's.
        let model = text("device/model").or_else(|| text("../device/model"));
        Self { number, name, model, ..self }
    }
}

fn is_known(number: &str) -> bool {
    Path::new("/sys/dev/block").join(number).exists()
}

fn number_of(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    file_system: String,
    source: String,
    options: String,
}

/// The mount that a path lies on: the last of those with the longest mount point.
fn mount_of(path: &Path, mountinfo: &str) -> Option<Mount> {
    let mut found: Option<(usize, Mount)> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(point), Some(options)) = (left.get(4), left.get(5)) else { continue };
        let point = unescaped(point);
        let [file_system, source, more @ ..] = &right[..] else { continue };
        let longest = found.as_ref().is_none_or(|(length, _)| point.len() >= *length);
        if path.starts_with(&point) && longest {
            let mount = Mount {
                file_system: (*file_system).to_owned(),
                source: unescaped(source),
                options: [&[*options], more].concat().join(","),
            };
            found = Some((point.len(), mount));
        }
    }
    found.map(|(_, mount)| mount)
}

/// The kernel writes blanks in names as `\040`.
fn unescaped(name: &str) -> String {
    name.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:40 /sub /data/my\\040disk rw shared:5 master:2 - btrfs /dev/vdb rw,compress=zstd:3
31 22 0:41 / /data rw - tmpfs tmpfs rw
";

    #[test]
    fn the_longest_mount_point_counts() {
        let of = |path: &str| mount_of(Path::new(path), MOUNTS).unwrap();
        assert_eq!(of("/data/my disk/x").file_system, "btrfs");
        assert!(of("/data/my disk/x").options.contains("compress=zstd:3"));
        assert_eq!(of("/data/other").file_system, "tmpfs");
        let root = of("/database");
        assert_eq!((root.file_system.as_str(), root.source.as_str()), ("ext4", "/dev/vda"));
        assert_eq!(mount_of(Path::new("/x"), "nonsense\n1 2 3\n"), None);
    }

    #[test]
    fn what_cannot_be_told_is_absent() {
        assert_eq!(ProbedPlace::of(Path::new("/nowhere/at/all")), ProbedPlace::default());
    }
}
