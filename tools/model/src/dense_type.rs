//! In which types the dense parts of a model are held: attention, embeddings, head.

use lnp_engine::sys::cpu::detect;
use lnp_kernels::{CpuFeatures, Numbers, Tier};

use super::stored::StoredType;

/// Numbers of a block: rows that are not whole blocks are held in f32.
const BLOCK: usize = 32;

/// How the dense parts of a model are held.
#[derive(Debug, Clone, Copy)]
pub struct DenseOptions {
    /// In which type.
    pub numbers: DenseNumbers,
    /// What the kernels may use.
    pub features: CpuFeatures,
    /// Whether the embeddings stay in the model's files, of which a row is read for each token.
    pub embeddings_on_flash: bool,
}

/// Of which type the numbers of the dense parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DenseNumbers {
    /// What loses nothing, of the weights and of what is multiplied with them: f16 or bf16 where the checkpoint is in it,
    /// else f32.
    #[default]
    Lossless,
    /// As the model's files have them: what is quantised stays so, ggml's types of 256 numbers a block too.
    Stored,
    /// All in one type.
    Of(DenseType),
}

impl Default for DenseOptions {
    /// Without loss: kernels that round what is multiplied are left out.
    fn default() -> Self {
        let features = detect().up_to(Tier::Neon);
        Self { numbers: DenseNumbers::Lossless, features, embeddings_on_flash: false }
    }
}

impl DenseOptions {
    /// The same in f32, whatever the checkpoint has.
    pub(crate) fn in_f32() -> Self {
        Self { numbers: DenseNumbers::Of(DenseType::F32), ..Self::default() }
    }

    /// The same for what is looked up and not multiplied: nothing is rounded.
    pub(crate) fn lossless(self) -> Self {
        Self { numbers: DenseNumbers::Lossless, ..self }
    }

    /// How a matrix of these many columns is held that is stored so.
    pub(crate) fn held(&self, stored: StoredType, columns: usize) -> HeldType {
        let whole_blocks = columns.is_multiple_of(BLOCK);
        match self.numbers {
            DenseNumbers::Stored if stored.block() > BLOCK => HeldType::Ggml(stored),
            _ if !whole_blocks => HeldType::Of(DenseType::F32),
            DenseNumbers::Of(numbers) => HeldType::Of(numbers),
            DenseNumbers::Stored => HeldType::Of(match stored {
                StoredType::Q8_0 => DenseType::Q8_0,
                StoredType::Q4_0 => DenseType::Q4_0,
                other => DenseType::without_loss(other),
            }),
            DenseNumbers::Lossless => HeldType::Of(DenseType::without_loss(stored)),
        }
    }
}

/// How a matrix is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldType {
    /// In a type that our kernels multiply.
    Of(DenseType),
    /// In one of ggml's that candle multiplies.
    Ggml(StoredType),
}

impl HeldType {
    /// Bytes of a row of so many numbers, whole blocks of the type.
    pub(crate) fn row_bytes(self, columns: usize) -> usize {
        match self {
            // no whole blocks
            Self::Of(DenseType::F32) => columns * size_of::<f32>(),
            Self::Of(numbers) => numbers.numbers().row_bytes(columns),
            Self::Ggml(stored) => stored.row_bytes(columns).unwrap_or(0),
        }
    }
}

/// A type that matrices of the dense parts are held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseType {
    /// Exact, of any checkpoint but one in f64.
    F32,
    /// Rounded, where the checkpoint is not in f16.
    F16,
    /// Rounded, where the checkpoint is not in bf16.
    Bf16,
    /// Rounded to 8 bits, a scale for each 32.
    Q8_0,
    /// Rounded to 4 bits, a scale for each 32.
    Q4_0,
}

impl DenseType {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0];

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dense| dense.name() == name)
    }

    /// Its name on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        self.numbers().name()
    }

    pub(crate) const fn numbers(self) -> Numbers {
        match self {
            Self::F32 => Numbers::F32,
            Self::F16 => Numbers::F16,
            Self::Bf16 => Numbers::Bf16,
            Self::Q8_0 => Numbers::Q8_0,
            Self::Q4_0 => Numbers::Q4_0,
        }
    }

    pub(crate) const fn stored(self) -> StoredType {
        match self {
            Self::F32 => StoredType::F32,
            Self::F16 => StoredType::F16,
            Self::Bf16 => StoredType::Bf16,
            Self::Q8_0 => StoredType::Q8_0,
            Self::Q4_0 => StoredType::Q4_0,
        }
    }

    /// What holds a type of the files without loss, and is multiplied without.
    fn without_loss(stored: StoredType) -> Self {
        match stored {
            StoredType::F16 => Self::F16,
            StoredType::Bf16 => Self::Bf16,
            _ => Self::F32,
        }
    }
}
