//! stub
use crate::plan::{Collapse, Geometry};
/// stub
pub const fn scratch_len(slots: u32) -> usize {
    slots as usize / 64 + 4
}
/// stub
pub fn choose<I: Iterator<Item = u32>>(
    _: &mut [u64],
    _: &Geometry,
    _: &Collapse,
    _: impl Fn(usize) -> I,
    _: &mut [u64],
) {
}
