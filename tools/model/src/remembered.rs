//! What attention remembers of a layer: the keys and values of all tokens so far, head by head, as its kernels go
//! through them.

use candle_core::{Device, Result, Tensor};
use half::f16;
use lnp_kernels::{CpuFeatures, Dtype, Input, KernelError, Numbers, Rows, Sums, Tier};
use zerocopy::IntoBytes;

use super::stored::{StoredType, to_f32};
use super::with_numbers;

/// The memory of a layer starts with room for this many tokens and doubles, where nothing is known of the text.
const CAPACITY_TOKENS_MIN: usize = 64;
/// Numbers of a block of the kernels: what a head's are rounded up to.
const BLOCK: usize = 32;

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

    /// Bytes of the numbers of a head, of one token.
    pub(crate) const fn row_bytes(self, head_dim: usize) -> usize {
        let numbers = head_dim.next_multiple_of(BLOCK);
        match self {
            Self::F32 => numbers * size_of::<f32>(),
            Self::F16 => numbers * size_of::<f16>(),
        }
    }

    const fn types(self) -> (Numbers, Dtype, StoredType) {
        match self {
            Self::F32 => (Numbers::F32, Dtype::F32, StoredType::F32),
            Self::F16 => (Numbers::F16, Dtype::F16, StoredType::F16),
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

/// What all layers of a text have in common: the heads, and the kernels that go through them.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    dtype: KvType,
    heads: usize,
    head_dim: usize,
    products: Rows,
    sums: Sums,
}

impl Shape {
    /// Of so many heads, whose kernels may use these features as far as they round nothing.
    pub(crate) fn new(
        dtype: KvType,
        [heads, head_dim]: [usize; 2],
        features: CpuFeatures,
    ) -> std::result::Result<Self, KernelError> {
        let (numbers, of_sums, _) = dtype.types();
        let (columns, features) = (head_dim.next_multiple_of(BLOCK), features.up_to(Tier::Neon));
        let products = Rows::new(numbers, columns, features)?;
        Ok(Self { dtype, heads, head_dim, products, sums: Sums::new(of_sums, columns, features)? })
    }

    const fn row_bytes(&self) -> usize {
        self.dtype.row_bytes(self.head_dim)
    }
}

/// Keys and values of one layer, `[head][position][head_dim]` each.
pub(crate) struct LayerCache {
    shape: Shape,
    keys: Vec<u8>,
    values: Vec<u8>,
    /// Tokens that are there.
    tokens: usize,
    /// Tokens that there is room for.
    room: usize,
    /// Tokens that there shall be room for.
    tokens_asked: usize,
}

/// Keys or values of a [`LayerCache`] from one position up to another.
#[derive(Clone, Copy)]
pub(crate) struct Span<'c> {
    shape: &'c Shape,
    bytes: &'c [u8],
    room: usize,
    begin: usize,
    end: usize,
}

impl LayerCache {
    /// Nothing remembered, of a text that will have so many tokens; 0 where nobody knows.
    pub(crate) const fn new(shape: Shape, tokens_asked: usize) -> Self {
        Self { shape, keys: Vec::new(), values: Vec::new(), tokens: 0, room: 0, tokens_asked }
    }

    /// Writes keys and values [tokens, heads * head_dim] at `position`. What stood there and beyond is forgotten, so a
    /// forward pass that failed half-way can be repeated.
    pub(crate) fn append(&mut self, position: usize, k: &Tensor, v: &Tensor) -> Result<()> {
        let (tokens, width) = k.dims2()?;
        if width != self.shape.heads * self.shape.head_dim || position > self.tokens {
            candle_core::bail!("keys of {width} numbers at position {position}");
        }
        self.tokens = position;
        let end = position + tokens;
        self.make_room(end);
        for (table, x) in [(&mut self.keys, k), (&mut self.values, v)] {
            let (shape, room) = (&self.shape, self.room);
            with_numbers(x, |x| write(table, shape, room, position, x))?;
        }
        self.tokens = end;
        Ok(())
    }

    fn make_room(&mut self, end: usize) {
        if end <= self.room {
            return;
        }
        let room = if end <= self.tokens_asked {
            self.tokens_asked
        } else {
            end.next_power_of_two().max(CAPACITY_TOKENS_MIN)
        };
        let (row_bytes, heads) = (self.shape.row_bytes(), self.shape.heads);
        for table in [&mut self.keys, &mut self.values] {
            // Zeros: pages that nobody has written to take no memory.
            let mut larger = vec![0; heads * room * row_bytes];
            let of_heads = table.chunks(self.room.max(1) * row_bytes);
            for (from, to) in of_heads.zip(larger.chunks_mut(room * row_bytes)) {
                let there = self.tokens * row_bytes;
                to[..there].copy_from_slice(&from[..there]);
            }
            *table = larger;
        }
        self.room = room;
    }

    /// Keys and values up to a position.
    pub(crate) fn up_to(&self, end: usize) -> Result<[Span<'_>; 2]> {
        if end > self.tokens || self.room == 0 {
            candle_core::bail!("no keys and values of the layer up to position {end}");
        }
        let span = |bytes| Span { shape: &self.shape, bytes, room: self.room, begin: 0, end };
        Ok([span(&self.keys), span(&self.values)])
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.capacity() + self.values.capacity()
    }
}

/// Writes numbers [tokens, heads * head_dim] at a position.
fn write(table: &mut [u8], shape: &Shape, room: usize, position: usize, x: &[f32]) {
    let row_bytes = shape.row_bytes();
    for (token, x) in x.chunks_exact(shape.heads * shape.head_dim).enumerate() {
        for (head, x) in x.chunks_exact(shape.head_dim).enumerate() {
            let at = (head * room + position + token) * row_bytes;
            let row = &mut table[at..at + row_bytes];
            match shape.dtype {
                KvType::F32 => row[..4 * x.len()].copy_from_slice(x.as_bytes()),
                KvType::F16 => {
                    for (bytes, value) in row.as_chunks_mut::<2>().0.iter_mut().zip(x) {
                        *bytes = f16::from_f32(*value).to_le_bytes();
                    }
                }
            }
        }
    }
}

impl Span<'_> {
    /// How many positions.
    pub(crate) fn count(&self) -> usize {
        self.end - self.begin
    }

    /// Those from this one on.
    pub(crate) fn after(self, begin: usize) -> Self {
        Self { begin: begin.min(self.end), ..self }
    }

    /// Numbers that a head's are rounded up to, with zeros.
    pub(crate) fn columns(&self) -> usize {
        self.shape.head_dim.next_multiple_of(BLOCK)
    }

    fn head(&self, head: usize) -> &[u8] {
        let (first, row_bytes) = (head * self.room, self.shape.row_bytes());
        &self.bytes[(first + self.begin) * row_bytes..(first + self.end) * row_bytes]
    }

    /// The products of all positions of a head with some queries of [`Self::columns`] numbers each:
    /// `[query][position]`.
    pub(crate) fn products(
        &self,
        head: usize,
        queries: &[f32],
        out: &mut [f32],
    ) -> std::result::Result<(), KernelError> {
        let kernel = &self.shape.products;
        let rows = self.head(head);
        let queries = queries.chunks_exact(self.columns());
        for (query, out) in queries.zip(out.chunks_exact_mut(self.count().max(1))) {
            // Of types that round nothing, an input is taken as it is.
            let input: Input<'_> = kernel.prepare(query, &mut [])?;
            kernel.multiply(&input, rows, out)?;
        }
        Ok(())
    }

    /// Adds all positions of a head, each times its weight, to [`Self::columns`] numbers.
    pub(crate) fn add(
        &self,
        head: usize,
        weights: &[f32],
        out: &mut [f32],
    ) -> std::result::Result<(), KernelError> {
        self.shape.sums.add(weights, self.head(head), out)
    }

    /// All of them in f32, [heads, count, head_dim].
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        let Shape { heads, head_dim, .. } = *self.shape;
        let (_, _, stored) = self.shape.dtype.types();
        let mut numbers = Vec::with_capacity(heads * self.count() * head_dim);
        for head in 0..heads {
            let Some(rows) = to_f32(stored, self.head(head)) else {
                candle_core::bail!("keys and values of no type")
            };
            let rows = rows.chunks_exact(self.columns());
            rows.for_each(|row| numbers.extend_from_slice(&row[..head_dim]));
        }
        Tensor::from_vec(numbers, (heads, self.count(), head_dim), &Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two heads of three numbers.
    fn tensor(first: f32, tokens: usize) -> Tensor {
        let values: Vec<f32> = (0..tokens * 6).map(|at| first + at as f32 / 2.0).collect();
        Tensor::from_slice(&values, (tokens, 6), &Device::Cpu).unwrap()
    }

    fn by_head(parts: &[(f32, usize)]) -> Vec<Vec<Vec<f32>>> {
        let rows: Vec<Vec<f32>> = parts
            .iter()
            .flat_map(|(first, tokens)| tensor(*first, *tokens).to_vec2::<f32>().unwrap())
            .collect();
        [0, 3].map(|at| rows.iter().map(|row| row[at..at + 3].to_vec()).collect()).to_vec()
    }

    #[test]
    fn what_is_written_again_replaces_what_stood_there() -> Result<()> {
        for dtype in KvType::ALL {
            for tokens in [0, 3, 300] {
                let shape = Shape::new(dtype, [2, 3], CpuFeatures::NONE).unwrap();
                let mut cache = LayerCache::new(shape, tokens);
                assert!(cache.up_to(0).is_err());
                cache.append(0, &tensor(1.0, 2), &tensor(5.0, 2))?;
                cache.append(1, &tensor(9.0, 1), &tensor(-4.0, 1))?;
                assert!(cache.up_to(3).is_err());
                assert!(cache.append(3, &tensor(0.0, 1), &tensor(0.0, 1)).is_err());
                let [keys, values] = cache.up_to(2)?;
                assert_eq!(keys.tensor()?.to_vec3::<f32>()?, by_head(&[(1.0, 1), (9.0, 1)]));
                let last = values.after(1);
                assert_eq!((last.count(), last.columns()), (1, 32));
                assert_eq!(last.tensor()?.to_vec3::<f32>()?, by_head(&[(-4.0, 1)]));
                let room = if tokens == 0 { CAPACITY_TOKENS_MIN } else { tokens };
                assert_eq!(cache.bytes(), 2 * 2 * room * dtype.row_bytes(3));
                // more than there was room for
                cache.append(2, &tensor(20.0, 130), &tensor(30.0, 130))?;
                let [keys, _] = cache.up_to(132)?;
                let all = by_head(&[(1.0, 1), (9.0, 1), (20.0, 130)]);
                assert_eq!(keys.tensor()?.to_vec3::<f32>()?, all);
            }
        }
        Ok(())
    }

    #[test]
    fn products_and_sums_are_of_one_head() -> Result<()> {
        for dtype in KvType::ALL {
            let shape = Shape::new(dtype, [2, 3], CpuFeatures::NONE).unwrap();
            let mut cache = LayerCache::new(shape, 0);
            cache.append(0, &tensor(1.0, 5), &tensor(7.0, 5))?;
            let [keys, values] = cache.up_to(4)?.map(|all| all.after(1));
            let of_head = by_head(&[(1.0, 5)]);
            let mut queries = vec![0.0; 64];
            queries[..3].copy_from_slice(&[1.0, -2.0, 0.5]);
            queries[32..35].copy_from_slice(&[0.0, 1.0, 0.0]);
            for (head, keys_of_head) in of_head.iter().enumerate() {
                let mut found = [0.0; 6];
                keys.products(head, &queries, &mut found).unwrap();
                for (position, row) in keys_of_head[1..4].iter().enumerate() {
                    assert_eq!(found[position], row[0] - 2.0 * row[1] + 0.5 * row[2]);
                    assert_eq!(found[3 + position], row[1]);
                }
                let mut sum = [0.0; 32];
                values.add(head, &[1.0, 0.0, -2.0], &mut sum).unwrap();
                let rows = &by_head(&[(7.0, 5)])[head];
                for at in 0..3 {
                    assert_eq!(sum[at], rows[1][at] - 2.0 * rows[3][at]);
                }
                assert!(sum[3..].iter().all(|value| *value == 0.0));
            }
        }
        Ok(())
    }
}
