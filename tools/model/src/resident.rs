//! What a pack holds of a model besides its FFN, where it is asked to: attention, embeddings, head and norms, as one
//! safetensors file within the pack.
//!
//! Types that safetensors does not know are bytes in it, and the metadata `stored.NAME` says of which type.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Tensor;
use lnp_common::data_file::DataFile;
use lnp_common::tensor_file::{Header, SYNTHETIC, TensorShape, write_header};
use safetensors::Dtype;

use crate::checkpoint::{Checkpoint, Found, Laid, Place, StoredType};
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::dense_type::{DenseOptions, DenseType, HeldType};
use crate::gguf::{self, GgufFile};
use crate::loader::{Loader, Wanted};
use crate::matrix::Matrix;

/// What the metadata of a tensor's type begins with.
const STORED_KEY: &str = "stored.";

/// What goes into a pack of a model besides its FFN.
#[derive(Debug, Clone)]
pub struct Resident {
    parts: Vec<Part>,
    header: Vec<u8>,
    bytes: u64,
    options: DenseOptions,
}

#[derive(Debug, Clone)]
struct Part {
    name: String,
    shape: Vec<usize>,
    /// How a matrix is held; none for what goes in as it is.
    held: Option<HeldType>,
}

/// A tensor's type and shape in the file.
struct Told {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Of what is bytes there.
    stored: Option<StoredType>,
}

impl Resident {
    /// What a model's pack is to hold, in types of choice.
    ///
    /// # Errors
    /// As [`crate::Model::load`], or more tensors than a file can name.
    pub fn of(checkpoint: &Checkpoint, options: DenseOptions) -> Result<Self> {
        let config = ModelConfig::load(checkpoint)?;
        let mut loader = Loader::counting(checkpoint, options);
        Decoder::load(&mut loader, &config)?;
        let parts = loader.wanted().into_iter().map(|(name, Wanted { shape, held })| Part {
            name,
            shape,
            held,
        });
        let parts: Vec<Part> = parts.collect();
        let told = parts.iter().map(|part| part.told(checkpoint)).collect::<Result<Vec<_>>>()?;
        let mut metadata = BTreeMap::from([("model".to_owned(), checkpoint.name())]);
        let synthetic = checkpoint.synthetic().map(|how| (SYNTHETIC.to_owned(), how.to_owned()));
        metadata.extend(synthetic);
        for (part, told) in parts.iter().zip(&told) {
            if let Some(stored) = told.stored {
                metadata.insert(format!("{STORED_KEY}{}", part.name), stored.to_string());
            }
        }
        let shapes: Vec<TensorShape<'_>> = parts
            .iter()
            .zip(&told)
            .map(|(part, told)| TensorShape {
                name: &part.name,
                dtype: told.dtype,
                shape: &told.shape,
            })
            .collect();
        let mut header = Vec::new();
        write_header(&mut header, &metadata, &shapes)?;
        let data = told.iter().map(|told| {
            let elements: usize = told.shape.iter().product();
            (elements * told.dtype.bitsize() / 8) as u64
        });
        let bytes = header.len() as u64 + data.sum::<u64>();
        Ok(Self { parts, header, bytes, options })
    }

    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes it, one tensor in memory at a time.
    ///
    /// # Errors
    /// A failed read or write.
    pub fn write(&self, checkpoint: &Checkpoint, out: &mut dyn Write) -> Result<()> {
        out.write_all(&self.header)?;
        for Part { name, shape, held } in &self.parts {
            let bytes = match (held, shape.as_slice()) {
                (Some(held), &[rows, columns]) => {
                    let shape = [rows, columns];
                    Matrix::read(checkpoint, name, shape, *held, &self.options)?.into_bytes()?
                }
                _ => plain(checkpoint, name)?.1,
            };
            out.write_all(&bytes)?;
        }
        Ok(())
    }
}

impl Part {
    fn told(&self, checkpoint: &Checkpoint) -> Result<Told> {
        let numbers = |dtype| Told { dtype, shape: self.shape.clone(), stored: None };
        let stored = match self.held {
            None => match checkpoint.dtype(&self.name)? {
                StoredType::F64 => return Ok(numbers(Dtype::F64)),
                StoredType::F16 => return Ok(numbers(Dtype::F16)),
                StoredType::Bf16 => return Ok(numbers(Dtype::BF16)),
                _ => return Ok(numbers(Dtype::F32)),
            },
            Some(HeldType::Of(DenseType::F32)) => return Ok(numbers(Dtype::F32)),
            Some(HeldType::Of(DenseType::F16)) => return Ok(numbers(Dtype::F16)),
            Some(HeldType::Of(DenseType::Bf16)) => return Ok(numbers(Dtype::BF16)),
            Some(HeldType::Of(other)) => other.stored(),
            Some(HeldType::Ggml(stored)) => stored,
        };
        let [rows, columns] = self.shape.as_slice() else { bail!("{} is no matrix", self.name) };
        let row_bytes = stored.row_bytes(*columns).context("no type of weights")?;
        Ok(Told { dtype: Dtype::U8, shape: vec![*rows, row_bytes], stored: Some(stored) })
    }
}

/// A tensor in a type that stands alone: as the checkpoint has it, or in f32.
fn plain(checkpoint: &Checkpoint, name: &str) -> Result<(StoredType, Vec<u8>)> {
    let (stored, bytes) = checkpoint.read_raw(name)?;
    if matches!(stored, StoredType::F64 | StoredType::F32 | StoredType::F16 | StoredType::Bf16) {
        return Ok((stored, bytes));
    }
    let values = checkpoint.read_f32(name)?;
    Ok((StoredType::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
}

impl Matrix {
    /// What it holds, row after row.
    fn into_bytes(self) -> Result<Vec<u8>> {
        let of_f32 = |tensor: Tensor| -> Result<Vec<u8>> {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
        };
        self.bytes_or(of_f32)
    }
}

impl Checkpoint {
    /// A model that `path` says all about but its weights, and a pack the weights besides those of the FFN: a safetensors
    /// file of so many bytes within the pack.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or is not what it says.
    pub fn of_pack(path: &Path, pack: &Path, offset: u64, bytes: u64) -> Result<Self> {
        let config = match gguf::is_gguf(path) {
            true => Some(Arc::new(GgufFile::open(path)?.model()?.0)),
            false => None,
        };
        let within = || format!("{}: its resident section", pack.display());
        let data = DataFile::open(pack)?;
        let mut file = data.file();
        file.seek(SeekFrom::Start(offset)).with_context(within)?;
        let header = Header::read(&mut file.take(bytes), bytes).with_context(within)?;
        let mut tensors = BTreeMap::new();
        for (name, info) in header.tensors {
            let (begin, end) = info.data_offsets;
            let mut place = Place {
                dtype: info.dtype.into(),
                shape: info.shape,
                file: 0,
                offset: offset + header.data_start + begin as u64,
                bytes: end - begin,
                laid: Laid::InRows,
            };
            if let Some(stored) = header.metadata.get(&format!("{STORED_KEY}{name}")) {
                let wrong = || format!("{}: tensor `{name}` is no matrix of {stored}", within());
                let dtype = StoredType::from_name(stored).with_context(wrong)?;
                let &[rows, row_bytes] = place.shape.as_slice() else { bail!(wrong()) };
                let columns = dtype.columns(row_bytes).with_context(wrong)?;
                ensure!(info.dtype == Dtype::U8 && dtype.is_quantised(), wrong());
                (place.dtype, place.shape) = (dtype, vec![rows, columns]);
            }
            tensors.insert(name, place);
        }
        let synthetic = header.metadata.get(SYNTHETIC).cloned();
        let found = Found { files: vec![data], tensors, powerinfer: None, synthetic };
        Ok(Self::resident(path, found, config))
    }
}
