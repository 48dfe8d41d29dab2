//! From the errors of the engine to the numbers of the border.

use core::fmt;

use lnp_engine::EngineError;
use lnp_engine::queue::ReadFailure;
use lnp_engine::sys::{FileError, OpenError};
use lnp_format::FormatError;

use crate::types::*;

/// Why a call failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// A mistake of the program.
    Argument(&'static str),
    /// The memory is too small for what the pack and the settings need.
    Memory { expected: usize, found: usize },
    /// A setting of the border's own.
    Setting(&'static str),
    /// The file.
    File(FileError),
    /// A read of the index.
    Index(ReadFailure),
    /// The queue.
    Open(OpenError),
    /// Everything else.
    Engine(EngineError),
}

impl Failure {
    /// `LNP_ERROR_...`
    pub(crate) const fn status(&self) -> i32 {
        match self {
            Self::Argument(_) => LNP_ERROR_ARGUMENT,
            Self::Memory { .. } => LNP_ERROR_MEMORY,
            Self::Setting(_) => LNP_ERROR_CONFIG,
            Self::File(FileError::NoDirectReads) => LNP_ERROR_UNSUPPORTED,
            Self::File(_) => LNP_ERROR_OPEN,
            Self::Index(_) => LNP_ERROR_READ,
            Self::Open(OpenError::Engine(error)) | Self::Engine(error) => of_engine(error),
            Self::Open(_) => LNP_ERROR_UNSUPPORTED,
        }
    }
}

const fn of_engine(error: &EngineError) -> i32 {
    match error {
        EngineError::ArenaTooSmall { .. } => LNP_ERROR_MEMORY,
        EngineError::Config { .. } => LNP_ERROR_CONFIG,
        EngineError::Pack(_) => LNP_ERROR_PACK,
        EngineError::Read(_) => LNP_ERROR_READ,
        EngineError::Layer { .. } | EngineError::Active { .. } => LNP_ERROR_ACTIVE,
        EngineError::BundleDamaged { .. } => LNP_ERROR_DAMAGED,
        EngineError::OtherPack => LNP_ERROR_REPLACED,
        EngineError::NotComputable { .. }
        | EngineError::NoPredictor { .. }
        | EngineError::NoCutoffs { .. } => LNP_ERROR_UNSUPPORTED,
        _ => LNP_ERROR_ARGUMENT,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(what) | Self::Setting(what) => f.write_str(what),
            Self::Memory { expected, found } => {
                write!(f, "the memory has {found} bytes, {expected} are needed")
            }
            Self::File(error) => error.fmt(f),
            Self::Index(ReadFailure::Short { found }) => {
                write!(f, "the pack's index ends after {found} bytes")
            }
            Self::Index(ReadFailure::System { errno }) => {
                write!(f, "the pack's index cannot be read (errno {errno})")
            }
            Self::Index(_) => f.write_str("the pack's index cannot be read"),
            Self::Open(error) => error.fmt(f),
            Self::Engine(error) => error.fmt(f),
        }
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Self::Engine(EngineError::Pack(error))
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// One line, cut where it does not fit.
pub(crate) struct Text {
    bytes: [u8; Self::BYTES_MAX],
    length: usize,
}

impl Text {
    const BYTES_MAX: usize = 240;
    pub(crate) const EMPTY: Self = Self { bytes: [0; Self::BYTES_MAX], length: 0 };

    pub(crate) fn of(failure: &Failure) -> Self {
        let mut text = Self::EMPTY;
        // What does not fit is left out; nothing else can fail.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{failure}"));
        text
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            let end = self.length + char.len_utf8();
            let Some(place) = self.bytes.get_mut(self.length..end) else { return Err(fmt::Error) };
            char.encode_utf8(place);
            self.length = end;
        }
        Ok(())
    }
}
