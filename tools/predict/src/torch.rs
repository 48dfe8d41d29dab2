//! Tensors of a file that PyTorch's `torch.save` wrote: a zip of a pickle, which describes them, and their
//! numbers.
//!
//! Anyone may have written it. candle's pickle machine takes what it is told at its word: an object that is
//! put into itself again and again grows without end, and one in another in another is dropped by a
//! recursion as deep. So it is fed an operation at a time, and what lies on its stack is weighed after each.

use std::fs::File;
use std::io::{BufReader, Read, copy, sink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::pickle::{Object, Stack};
use lnp_common::files::open_file;
use lnp_model::checkpoint::to_f32;
use safetensors::Dtype;
use zip::ZipArchive;

/// Largest description read: that of a few matrices takes a kilobyte.
const PICKLE_BYTES_MAX: u64 = 1 << 16;
/// Objects, and pieces of text, that an unpickling may put on its stack in all.
const OBJECTS_MAX: usize = 1 << 20;
/// Deepest that objects may lie in each other.
const DEPTH_MAX: usize = 32;
/// Text of so many bytes weighs as much as an object.
const TEXT_BYTES: usize = 64;
/// Operations whose arguments have lengths of their own.
const UNICODE: u8 = b'X';
const LONG: u8 = 0x8a;

/// A tensor as the pickle describes it.
#[derive(Debug, Clone, PartialEq)]
struct Described {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// The numbers stand column by column.
    turned: bool,
    /// Where they begin in their entry, in numbers.
    offset: usize,
    /// Entry of the zip, below the folder `data`.
    key: String,
}

/// An open file: tensors described, numbers on demand.
pub(crate) struct TorchFile {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    /// Where the entries of numbers are.
    folder: String,
    tensors: Vec<Described>,
}

impl TorchFile {
    /// Opens a file and reads its description.
    ///
    /// # Errors
    /// It cannot be read, or is no such file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || -> Result<Self> {
            let file = BufReader::new(open_file(path)?);
            let mut archive = ZipArchive::new(file)
                .ok()
                .context("not a zip, as PyTorch writes since 1.6, or cut off")?;
            let names: Vec<String> =
                archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
            let mut of_pickle = names.iter().filter_map(|name| name.strip_suffix("data.pkl"));
            let folder = match (of_pickle.next(), of_pickle.next()) {
                (Some(folder), None) => folder.to_owned(),
                _ => return Err(anyhow!("a zip without one data.pkl: not of PyTorch")),
            };
            let pickle = entry(&mut archive, &format!("{folder}data.pkl"), PICKLE_BYTES_MAX)?;
            let tensors = described(&unpickled(&pickle)?)?;
            let folder = format!("{folder}data/");
            Ok(Self { path: path.to_owned(), archive, folder, tensors })
        };
        open().with_context(|| {
            format!("{}: not usable weights of PyTorch; save a state_dict", path.display())
        })
    }

    fn described(&self, name: &str) -> Result<&Described> {
        let found = self.tensors.iter().find(|tensor| tensor.name == name);
        found.with_context(|| format!("{}: has no tensor `{name}`", self.path.display()))
    }

    pub(crate) fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.described(name)?.shape)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.described(name).is_ok()
    }

    /// The numbers of a tensor, row-major. Takes memory for as many as its shape says.
    pub(crate) fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.described(name)?.clone();
        let name = format!("{}{}", self.folder, tensor.key);
        let mut read = || -> Result<Vec<f32>> {
            let size = tensor.dtype.bitsize() / 8;
            let bytes_of = |numbers: usize| numbers.checked_mul(size).context("too large");
            let count = tensor.shape.iter().try_fold(1usize, |all, one| all.checked_mul(*one));
            let wanted = bytes_of(count.context("too large")?)?;
            let mut found =
                self.archive.by_name(&name).ok().context("its numbers are not there")?;
            let before = bytes_of(tensor.offset)? as u64;
            let skipped = copy(&mut found.by_ref().take(before), &mut sink())?;
            let mut bytes = Vec::new();
            found.take(wanted as u64).read_to_end(&mut bytes)?;
            ensure!(
                skipped == before && bytes.len() == wanted,
                "{} of {wanted} bytes are there: damaged",
                bytes.len()
            );
            let numbers = to_f32(tensor.dtype, &bytes).context("no numbers")?;
            Ok(match tensor.shape.as_slice() {
                &[rows, _] if tensor.turned => transposed(&numbers, rows),
                _ => numbers,
            })
        };
        read().with_context(|| format!("{}: tensor `{}`", self.path.display(), tensor.name))
    }
}

/// Row-major numbers of a matrix that stands column by column.
fn transposed(numbers: &[f32], rows: usize) -> Vec<f32> {
    let row = |row: usize| numbers.iter().skip(row).step_by(rows.max(1)).copied();
    (0..rows).flat_map(row).collect()
}

/// An entry's bytes, at most so many.
fn entry(archive: &mut ZipArchive<BufReader<File>>, name: &str, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let found = archive.by_name(name).ok().with_context(|| format!("{name} is damaged"))?;
    found.take(most + 1).read_to_end(&mut bytes).with_context(|| format!("{name} is damaged"))?;
    ensure!(bytes.len() as u64 <= most, "{name} has more than {most} bytes: not a few matrices");
    Ok(bytes)
}

/// What a pickle describes.
fn unpickled(pickle: &[u8]) -> Result<Object> {
    let (mut stack, mut rest, mut weight) = (Stack::empty(), pickle, 0);
    let damaged = || anyhow!("data.pkl is no description of tensors, or damaged");
    loop {
        ensure!(argument_is_there(rest), damaged());
        // candle's error may print all that was unpickled
        let end = stack.read(&mut rest).map_err(|_| damaged())?;
        let top = stack.stack().last();
        weight += top.map_or(Some(0), |top| weigh(top, DEPTH_MAX)).with_context(damaged)?;
        ensure!(weight <= OBJECTS_MAX, damaged());
        if end {
            return stack.finalize().map_err(|_| damaged());
        }
    }
}

/// Whether the next operation's argument is as long as it says: candle takes memory for it before it reads.
fn argument_is_there(rest: &[u8]) -> bool {
    match rest {
        [UNICODE, a, b, c, d, text @ ..] => {
            u32::from_le_bytes([*a, *b, *c, *d]) as usize <= text.len()
        }
        [LONG, bytes, ..] => *bytes <= 8,
        _ => true,
    }
}

/// How many objects, and pieces of text, an object is; none where they lie too deep in each other.
fn weigh(object: &Object, depth: usize) -> Option<usize> {
    let depth = depth.checked_sub(1)?;
    let both = |a: &Object, b: &Object| Some(weigh(a, depth)? + weigh(b, depth)?);
    let below = match object {
        Object::Class { module_name, class_name } => {
            (module_name.len() + class_name.len()) / TEXT_BYTES
        }
        Object::Unicode(text) => text.len() / TEXT_BYTES,
        Object::Tuple(objects) | Object::List(objects) => {
            objects.iter().try_fold(0, |sum, object| Some(sum + weigh(object, depth)?))?
        }
        Object::Dict(pairs) => pairs.iter().try_fold(0, |sum, (a, b)| Some(sum + both(a, b)?))?,
        Object::Reduce { callable, args } | Object::Build { callable, args } => {
            both(callable, args)?
        }
        Object::PersistentLoad(object) => weigh(object, depth)?,
        _ => 0,
    };
    Some(1 + below)
}

/// The tensors of a dictionary; what else is in it is left out.
fn described(object: &Object) -> Result<Vec<Described>> {
    let Object::Dict(pairs) = object else {
        return Err(anyhow!("what it holds is no dictionary of tensors"));
    };
    let mut tensors = Vec::new();
    for (name, value) in pairs {
        if let (Object::Unicode(name), Some(args)) = (name, tensor_args(value)) {
            let tensor = tensor(name, args);
            tensors.push(tensor.with_context(|| format!("tensor `{name}` of a kind not known"))?);
        }
    }
    Ok(tensors)
}

/// What a tensor is put together from, whether it is a parameter or not.
fn tensor_args(object: &Object) -> Option<&[Object]> {
    let Object::Reduce { callable, args } = object else { return None };
    let (Object::Class { module_name, class_name }, Object::Tuple(args)) = (&**callable, &**args)
    else {
        return None;
    };
    match (module_name.as_str(), class_name.as_str()) {
        ("torch._utils", "_rebuild_tensor_v2") => Some(args),
        ("torch._utils", "_rebuild_parameter") => tensor_args(args.first()?),
        _ => None,
    }
}

/// From storage, offset, shape and strides.
fn tensor(name: &str, args: &[Object]) -> Option<Described> {
    let [Object::PersistentLoad(storage), offset, shape, strides, ..] = args else { return None };
    let Object::Tuple(storage) = &**storage else { return None };
    let [_, Object::Class { class_name, .. }, Object::Unicode(key), ..] = storage.as_slice() else {
        return None;
    };
    let dtype = match class_name.as_str() {
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "DoubleStorage" => Dtype::F64,
        _ => return None,
    };
    let (shape, strides) = (numbers(shape)?, numbers(strides)?);
    let turned = match (shape.as_slice(), strides.as_slice()) {
        ([], []) | ([_], [1]) => false,
        ([_, columns], [stride, 1]) if stride == columns => false,
        ([rows, _], [1, stride]) if stride == rows => true,
        _ => return None,
    };
    let offset = number(offset)?;
    Some(Described { name: name.to_owned(), dtype, shape, turned, offset, key: key.clone() })
}

fn number(object: &Object) -> Option<usize> {
    match object {
        Object::Int(number) => usize::try_from(*number).ok(),
        Object::Long(number) => usize::try_from(*number).ok(),
        _ => None,
    }
}

fn numbers(object: &Object) -> Option<Vec<usize>> {
    let Object::Tuple(objects) = object else { return None };
    objects.iter().map(number).collect()
}

#[cfg(test)]
#[path = "torch_tests.rs"]
mod tests;
