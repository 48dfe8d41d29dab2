//! What attention remembers of a layer: the keys and values of all tokens so far.

use std::ops::Range;

use candle_core::{Device, Result, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::with_numbers;

/// The memory of a layer starts with room for this many tokens and doubles, where nothing is known of the text.
const CAPACITY_TOKENS_MIN: usize = 64;

/// In which type keys and values are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// As they are computed.
    #[default]
    F32,
    /// Rounded.
    F16,
}

impl KvType {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Its name on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Bytes of a number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<f16>(),
        }
    }
}

/// How keys and values are held.
#[derive(Debug, Clone, Copy, Default)]
pub struct KvOptions {
    /// In which type.
    pub dtype: KvType,
    /// Tokens that the text will have; 0 where nobody knows: then there is room for twice as many whenever it ends.
    pub tokens: usize,
}

/// Keys and values of one layer, `[positions, width]` each.
pub(crate) struct LayerCache {
    keys: Table,
    values: Table,
    /// Tokens that there shall be room for.
    tokens: usize,
    width: usize,
}

/// Rows of numbers, one after the other.
enum Table {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

/// Rows of a [`LayerCache`] from one position up to another.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'c> {
    table: Slice<'c>,
    width: usize,
}

#[derive(Clone, Copy)]
enum Slice<'c> {
    F32(&'c [f32]),
    F16(&'c [f16]),
}

impl LayerCache {
    pub(crate) fn new(options: KvOptions) -> Self {
        let table = || match options.dtype {
            KvType::F32 => Table::F32(Vec::new()),
            KvType::F16 => Table::F16(Vec::new()),
        };
        Self { keys: table(), values: table(), tokens: options.tokens, width: 0 }
    }

    /// Writes keys and values [tokens, width] at `position`. What stood there and beyond is forgotten, so a forward
    /// pass that failed half-way can be repeated.
    pub(crate) fn append(&mut self, position: usize, k: &Tensor, v: &Tensor) -> Result<()> {
        let (tokens, width) = k.dims2()?;
        self.width = width;
        let end = position + tokens;
        let room = if end <= self.tokens {
            self.tokens
        } else {
            end.next_power_of_two().max(CAPACITY_TOKENS_MIN)
        };
        for (table, x) in [(&mut self.keys, k), (&mut self.values, v)] {
            table.cut(position * width, room * width);
            with_numbers(x, |x| table.extend(x))?;
        }
        Ok(())
    }

    /// Keys and values up to a position.
    pub(crate) fn up_to(&self, end: usize) -> Result<[Rows<'_>; 2]> {
        let rows = |table| Rows { table, width: self.width.max(1) };
        match (self.keys.first(end * self.width), self.values.first(end * self.width)) {
            (Some(keys), Some(values)) if self.width > 0 => Ok([rows(keys), rows(values)]),
            _ => candle_core::bail!("no keys and values of the layer up to position {end}"),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }
}

impl Table {
    /// Forgets what comes after so many numbers, and makes room for `room` in all.
    fn cut(&mut self, count: usize, room: usize) {
        fn cut<T>(numbers: &mut Vec<T>, count: usize, room: usize) {
            numbers.truncate(count);
            if numbers.capacity() < room {
                numbers.reserve_exact(room - numbers.len());
            }
        }
        match self {
            Self::F32(numbers) => cut(numbers, count, room),
            Self::F16(numbers) => cut(numbers, count, room),
        }
    }

    fn extend(&mut self, x: &[f32]) {
        match self {
            Self::F32(numbers) => numbers.extend_from_slice(x),
            Self::F16(numbers) => numbers.extend(x.iter().map(|value| f16::from_f32(*value))),
        }
    }

    fn first(&self, count: usize) -> Option<Slice<'_>> {
        match self {
            Self::F32(numbers) => numbers.get(..count).map(Slice::F32),
            Self::F16(numbers) => numbers.get(..count).map(Slice::F16),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.capacity() * size_of::<f32>(),
            Self::F16(numbers) => numbers.capacity() * size_of::<f16>(),
        }
    }
}

impl<'c> Rows<'c> {
    /// How many.
    pub(crate) fn count(&self) -> usize {
        match self.table {
            Slice::F32(numbers) => numbers.len() / self.width,
            Slice::F16(numbers) => numbers.len() / self.width,
        }
    }

    /// Those from this one on.
    pub(crate) fn after(self, begin: usize) -> Self {
        let table = match self.table {
            Slice::F32(numbers) => Slice::F32(numbers.get(begin * self.width..).unwrap_or(&[])),
            Slice::F16(numbers) => Slice::F16(numbers.get(begin * self.width..).unwrap_or(&[])),
        };
        Self { table, ..self }
    }

    /// All of them in f32, [count, width].
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        let shape = (self.count(), self.width);
        match self.table {
            Slice::F32(numbers) => Tensor::from_slice(numbers, shape, &Device::Cpu),
            Slice::F16(numbers) => Tensor::from_vec(numbers.to_f32_vec(), shape, &Device::Cpu),
        }
    }

    /// Gives some columns of each row, one after the other, with its number.
    pub(crate) fn each(&self, columns: Range<usize>, mut take: impl FnMut(usize, &[f32])) {
        match self.table {
            Slice::F32(numbers) => {
                let rows = numbers.chunks_exact(self.width).enumerate();
                rows.for_each(|(at, row)| take(at, &row[columns.clone()]));
            }
            Slice::F16(numbers) => {
                let mut wide = vec![0.0; columns.len()];
                for (at, row) in numbers.chunks_exact(self.width).enumerate() {
                    row[columns.clone()].convert_to_f32_slice(&mut wide);
                    take(at, &wide);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (values.len() / 2, 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn what_is_written_again_replaces_what_stood_there() -> Result<()> {
        for dtype in KvType::ALL {
            for tokens in [0, 3, 100] {
                let mut cache = LayerCache::new(KvOptions { dtype, tokens });
                assert!(cache.up_to(0).is_err());
                let (k, v) = (tensor(&[1.0, 2.0, 3.0, 4.0]), tensor(&[5.0, 6.0, 7.0, 8.0]));
                cache.append(0, &k, &v)?;
                cache.append(1, &tensor(&[9.0, 0.5]), &tensor(&[1.5, 2.5]))?;
                assert!(cache.up_to(3).is_err());
                let [keys, values] = cache.up_to(2)?;
                assert_eq!(keys.tensor()?.to_vec2::<f32>()?, [[1.0, 2.0], [9.0, 0.5]]);
                assert_eq!(values.after(1).tensor()?.to_vec2::<f32>()?, [[1.5, 2.5]]);
                let mut rows = Vec::new();
                keys.each(0..2, |at, row| rows.push((at, row.to_vec())));
                keys.each(1..2, |at, row| rows.push((at, row.to_vec())));
                let (whole, second) = ([vec![1.0, 2.0], vec![9.0, 0.5]], [vec![2.0], vec![0.5]]);
                assert_eq!(
                    rows,
                    [whole, second]
                        .map(|rows| (0..).zip(rows))
                        .into_iter()
                        .flatten()
                        .collect::<Vec<_>>()
                );
                let room = if tokens == 0 { CAPACITY_TOKENS_MIN } else { tokens };
                assert_eq!(cache.bytes(), 2 * 2 * room * dtype.bytes());
            }
        }
        Ok(())
    }
}
