//! What is told from a pack's first blocks, against what the whole index says.

mod common;

use common::{Recipe, assemble};
use lnp_format::layout::SectionEntry;
use lnp_format::{FormatError, Pack, Peek, SectionKind, write};
use zerocopy::byteorder::U32;

fn peek(image: &[u8], file_bytes: u64, longer: bool) -> Result<(Peek, u64), FormatError> {
    let mut bytes_read = 0;
    let peek = Peek::read(file_bytes, longer, |offset, bytes| {
        let begin = offset as usize;
        let found = image.get(begin..begin + bytes.len());
        let found = found.ok_or(FormatError::Truncated {
            what: "file",
            offset,
            expected: bytes.len() as u64,
            found: 0,
        })?;
        bytes.copy_from_slice(found);
        bytes_read += bytes.len() as u64;
        Ok::<_, FormatError>(())
    })?;
    Ok((peek, bytes_read))
}

#[test]
fn it_says_what_the_index_says() {
    for recipe in
        [Recipe::small(3, 40), Recipe::placeholder(1, 7, 512), Recipe::placeholder(2, 300, 4096)]
    {
        let image = recipe.build();
        let length = image.len() as u64;
        let pack = Pack::parse(&image, length).unwrap();
        for (file_bytes, longer) in
            [(length, false), (length, true), (length + 5000, true), (u64::MAX, true)]
        {
            let (found, bytes_read) = peek(&image, file_bytes, longer).unwrap();
            assert_eq!(found.file_bytes, length);
            assert_eq!(found.index_bytes, pack.superblock().index_bytes.get());
            assert_eq!(found.block_bytes, pack.block_bytes());
            assert_eq!(found.shape, *pack.shape());
            assert!(bytes_read <= 4096 + 64 * 48 + 64);
        }
        assert!(peek(&image, length + 1, false).is_err());
        assert!(peek(&image, length - 1, true).is_err());
    }
}

/// Sections of kind 0, which no version has yet, come before the model shape.
#[test]
fn kinds_before_the_model_shape_are_passed_over() {
    for count in [1, 63, 64, 200] {
        let plain = Recipe::small(1, 4).build();
        let pack = Pack::parse(&plain, plain.len() as u64).unwrap();
        let body = |entry: &SectionEntry| {
            let begin = entry.offset.get() as usize;
            plain[begin..begin + entry.bytes.get() as usize].to_vec()
        };
        let unknown = (0..count).map(|layer| {
            let mut entry = write::entry(SectionKind::ModelShape, layer, 0, 1);
            entry.kind = U32::new(0);
            (entry, vec![7])
        });
        let known = pack.sections().iter().map(|entry| (*entry, body(entry)));
        let image = assemble(unknown.chain(known).collect(), 512, 0);
        let pack = Pack::parse(&image, image.len() as u64).unwrap();
        let (found, _) = peek(&image, image.len() as u64, false).unwrap();
        assert_eq!(found.shape, *pack.shape());
        assert_eq!(found.index_bytes, pack.superblock().index_bytes.get());
    }
}

/// Whatever bit is wrong, what it says has room in the file, so that nobody sets memory aside for more.
#[test]
fn a_flipped_bit_is_an_error_or_changes_nothing() {
    let recipe = Recipe::placeholder(2, 60, 512);
    let sound = recipe.build();
    let length = sound.len() as u64;
    let (expected, _) = peek(&sound, length, false).unwrap();
    let mut image = sound.clone();
    let mut refused = 0;
    for bit in 0..expected.index_bytes as usize * 8 {
        image[bit / 8] ^= 1 << (bit % 8);
        match peek(&image, length, false) {
            Ok((found, _)) => assert_eq!(found, expected, "bit {bit}"),
            Err(_) => refused += 1,
        }
        image[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(refused >= 4096 * 8, "{refused}");
}

/// A small file that claims a huge model, all checksums right.
#[test]
fn a_shape_that_has_no_room_is_refused() {
    let recipe = Recipe::placeholder(2, 60, 512);
    let mut image = recipe.build();
    let entry = 4096;
    let offset = u64::from_le_bytes(image[entry + 16..entry + 24].try_into().unwrap()) as usize;
    for neurons in [80_u32, 5000, 1 << 24] {
        image[offset + 4..offset + 8].copy_from_slice(&neurons.to_le_bytes());
        let sum = lnp_format::checksum::crc32(&image[offset..offset + 64]);
        image[entry + 12..entry + 16].copy_from_slice(&sum.to_le_bytes());
        let found = peek(&image, image.len() as u64, false);
        assert!(found.is_err(), "{neurons} neurons: {found:?}");
    }
}
