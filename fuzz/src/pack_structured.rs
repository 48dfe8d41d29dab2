//! A valid pack, made from a recipe, and then changed where it hurts.
//!
//! Unchanged it has to validate, and every accessor to give what the recipe said. Changed it may be
//! anything; `pack_checks` says what holds then.

mod made;
mod mutation;

use arbitrary::Arbitrary;
use lnp_format::Pack;

use crate::pack_checks::check;
use made::Made;
use mutation::{Mutation, Sections};

/// A pack and what is done to it.
#[derive(Arbitrary, Debug)]
pub struct Case {
    pack: Made,
    /// What is spliced in.
    other: Made,
    length: Length,
    mutations: Vec<Mutation>,
}

/// Which length of the file is told.
#[derive(Arbitrary, Debug)]
enum Length {
    True,
    /// As the superblock says.
    Claimed,
    Longer(u16),
    Any(u64),
}

impl Length {
    fn bytes(&self, file: &[u8]) -> u64 {
        let length = file.len() as u64;
        let claimed = file.get(32..40).and_then(|bytes| bytes.try_into().ok());
        match self {
            Self::True => length,
            Self::Claimed => claimed.map_or(length, u64::from_le_bytes),
            Self::Longer(more) => length + u64::from(*more),
            Self::Any(bytes) => *bytes,
        }
    }
}

/// Makes the pack, checks it, changes it and checks what is left.
pub fn run(case: &Case) {
    let built = case.pack.build();
    let file = &built.file;
    let pack = Pack::parse(file, file.len() as u64).expect("what the recipe makes is valid");
    built.compare(&pack);
    if case.mutations.is_empty() {
        assert!(check(file, file.len() as u64));
        return;
    }
    let index_bytes = pack.superblock().index_bytes.get() as usize;
    let sections = Sections::of(&pack);
    let other = case.other.build().file;
    let mut changed = file.clone();
    for mutation in case.mutations.iter().take(16) {
        mutation.apply(&mut changed, &sections, &other);
    }
    let valid = check(&changed, case.length.bytes(&changed));
    // Validation looks at the index, and at nothing else.
    if changed.len() == file.len() && changed[..index_bytes] == file[..index_bytes] {
        assert_eq!(valid, case.length.bytes(&changed) == file.len() as u64);
    }
}
