//! Changes to a pack that aim at what a reader believes: fields, offsets, permutations, lengths.

use arbitrary::Arbitrary;
use lnp_format::Pack;
use lnp_format::layout::{Field, SectionEntry, Superblock};

use crate::pick;

/// One change.
#[derive(Arbitrary, Debug)]
pub(super) enum Mutation {
    Superblock {
        field: u8,
        value: Value,
    },
    Entry {
        section: u8,
        field: u8,
        value: Value,
    },
    /// A word of a section: of its header, its permutations, its counts.
    Word {
        section: u8,
        word: u16,
        value: Value,
    },
    /// Two words of a section change places.
    SwapWords {
        section: u8,
        words: (u16, u16),
    },
    /// A reserved or padding byte, or any other.
    Byte {
        at: u32,
        value: u8,
    },
    Flip {
        at: u32,
        bit: u8,
    },
    /// Two entries change places, all of them or only where they point.
    SwapSections {
        sections: (u8, u8),
        places_only: bool,
    },
    /// One section begins where, or shortly after, another does.
    Overlap {
        sections: (u8, u8),
        after: u8,
    },
    /// An entry is there twice, and another is not.
    Copy {
        sections: (u8, u8),
    },
    Truncate {
        bytes: u16,
    },
    Grow {
        bytes: u16,
        with: u8,
    },
    /// From here on it is the other pack.
    Splice {
        at: u16,
    },
    /// A stretch of it is the other pack.
    Insert {
        at: u16,
        bytes: u16,
    },
}

/// What a field becomes.
#[derive(Arbitrary, Debug)]
pub(super) enum Value {
    Zero,
    One,
    Max,
    /// A little more or less.
    Plus(i8),
    Twice,
    Half,
    /// What makes the sum with it wrap to this.
    WrapTo(u8),
    Blocks(i8),
    Power(u8),
    Bit(u8),
    Any(u64),
}

impl Value {
    fn of(&self, old: u64, bytes: usize) -> u64 {
        match self {
            Self::Zero => 0,
            Self::One => 1,
            Self::Max => u64::MAX,
            Self::Plus(more) => old.wrapping_add_signed((*more).into()),
            Self::Twice => old.wrapping_mul(2),
            Self::Half => old / 2,
            Self::WrapTo(sum) => u64::from(*sum).wrapping_sub(old),
            Self::Blocks(blocks) => old.wrapping_add_signed(i64::from(*blocks) * 512),
            Self::Power(bit) => 1 << (usize::from(*bit) % (8 * bytes)),
            Self::Bit(bit) => old ^ 1 << (usize::from(*bit) % (8 * bytes)),
            Self::Any(value) => *value,
        }
    }

    /// Writes it over the `bytes` bytes at `at`, as far as they are there.
    fn put(&self, file: &mut [u8], at: usize, bytes: usize) {
        let Some(place) = at.checked_add(bytes).and_then(|end| file.get_mut(at..end)) else {
            return;
        };
        let mut old = [0; 8];
        old[..bytes].copy_from_slice(place);
        let new = self.of(u64::from_le_bytes(old), bytes);
        place.copy_from_slice(&new.to_le_bytes()[..bytes]);
    }
}

/// Where the sections of the unchanged pack are.
pub(super) struct Sections {
    /// (begin, bytes).
    places: Vec<(usize, usize)>,
}

const TABLE: usize = size_of::<Superblock>();
const ENTRY: usize = size_of::<SectionEntry>();

impl Sections {
    pub(super) fn of(pack: &Pack<'_>) -> Self {
        let place =
            |entry: &SectionEntry| (entry.offset.get() as usize, entry.bytes.get() as usize);
        Self { places: pack.sections().iter().map(place).collect() }
    }

    fn entry(&self, number: u8) -> usize {
        TABLE + ENTRY * (usize::from(number) % self.places.len())
    }

    /// Where a word of a section is.
    fn word(&self, section: u8, word: u16) -> usize {
        let (begin, bytes) = pick(&self.places, section);
        begin + 4 * (usize::from(word) % (bytes / 4).max(1))
    }
}

fn swap(file: &mut [u8], first: usize, second: usize, bytes: usize) {
    if first.max(second) + bytes <= file.len() && first.abs_diff(second) >= bytes {
        (0..bytes).for_each(|at| file.swap(first + at, second + at));
    }
}

fn field(fields: &[Field], number: u8) -> (usize, usize) {
    let field = &fields[usize::from(number) % fields.len()];
    (field.offset, field.bytes.min(8))
}

impl Mutation {
    pub(super) fn apply(&self, file: &mut Vec<u8>, sections: &Sections, other: &[u8]) {
        match self {
            Self::Superblock { field: number, value } => {
                let (offset, bytes) = field(Superblock::FIELDS, *number);
                value.put(file, offset, bytes);
            }
            Self::Entry { section, field: number, value } => {
                let (offset, bytes) = field(SectionEntry::FIELDS, *number);
                value.put(file, sections.entry(*section) + offset, bytes);
            }
            Self::Word { section, word, value } => {
                value.put(file, sections.word(*section, *word), 4);
            }
            Self::SwapWords { section, words } => {
                let place = |word| sections.word(*section, word);
                swap(file, place(words.0), place(words.1), 4);
            }
            Self::Byte { at, value } => {
                let length = file.len().max(1);
                file.get_mut(*at as usize % length).into_iter().for_each(|byte| *byte = *value);
            }
            Self::Flip { at, bit } => {
                let length = file.len().max(1);
                let byte = file.get_mut(*at as usize % length);
                byte.into_iter().for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Self::SwapSections { sections: (first, second), places_only } => {
                let (first, second) = (sections.entry(*first), sections.entry(*second));
                let (skip, bytes) = if *places_only { (16, 16) } else { (0, ENTRY) };
                swap(file, first + skip, second + skip, bytes);
            }
            Self::Overlap { sections: (first, second), after } => {
                let begin = pick(&sections.places, *second).0 as u64 + u64::from(*after) * 32;
                Value::Any(begin).put(file, sections.entry(*first) + 16, 8);
            }
            Self::Copy { sections: (from, to) } => {
                let (from, to) = (sections.entry(*from), sections.entry(*to));
                if from.max(to) + ENTRY <= file.len() {
                    file.copy_within(from..from + ENTRY, to);
                }
            }
            Self::Truncate { bytes } => {
                file.truncate(file.len().saturating_sub(usize::from(*bytes)));
            }
            Self::Grow { bytes, with } => {
                file.resize(file.len() + usize::from(*bytes % 4096), *with);
            }
            Self::Splice { at } => {
                let at = usize::from(*at).min(file.len()).min(other.len());
                file.truncate(at);
                file.extend_from_slice(&other[at..]);
            }
            Self::Insert { at, bytes } => {
                let end = file.len().min(other.len());
                let at = usize::from(*at).min(end);
                let end = (at + usize::from(*bytes)).min(end);
                file[at..end].copy_from_slice(&other[at..end]);
            }
        }
    }
}
