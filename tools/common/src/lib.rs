//! What the tools share and what has nothing to do with language models or flash: [`files`] that
//! appear whole or not at all, [`folders`] likewise, [`data_file`] (tensors read where they lie), [`tensor_file`] (safetensors:
//! checkpoints, traces and links are such files), [`report`] (tables, progress, JSON, numbers for people) and [`interrupt`].
//!
//! ```
//! use lnp_common::{files::write_text, report::{bytes, table}};
//!
//! let folder = std::env::temp_dir();
//! let path = folder.join(format!("lnp-common-{}.txt", std::process::id()));
//! write_text(&path, &table(&["file", "size"], &[vec!["pack".into(), bytes(4096.0)]], 1))?;
//! assert_eq!(std::fs::read_to_string(&path)?, "file     size\npack  4.0 KiB\n");
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), anyhow::Error>(())
//! ```
#![forbid(unsafe_code)]
// stdout and stderr go through `report`, which knows what to do when nobody reads them
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod data_file;
pub mod files;
pub mod folders;
pub mod interrupt;
pub mod report;
pub mod tensor_file;
