//! A planted bug, which the fuzzer has to find within its time: says that the set-up finds anything.

/// What the panic says.
pub const FOUND: &str = "the canary is found";

/// Panics on inputs that begin like a pack, name three links, and have a sum that fits.
pub fn run(data: &[u8]) {
    // Byte by byte, which needs the coverage of branches,
    let begins = [0x89, b'L', b'N', b'P'];
    for (at, byte) in begins.into_iter().enumerate() {
        if data.get(at) != Some(&byte) {
            return;
        }
    }
    // a word at once, which needs the operands of comparisons,
    let Some(word) = data.get(4..8).and_then(|word| word.try_into().ok()) else { return };
    if u32::from_le_bytes(word) != 0x6b6e_696c {
        return;
    }
    // and three numbers that hang together.
    let Some([first, second, sum]) = data.get(8..11) else { return };
    if *first > 3 && second > first && first.wrapping_add(*second) == *sum {
        panic!("{FOUND}");
    }
}
