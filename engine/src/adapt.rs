//! stub
use crate::law::DeviceLaw;
#[derive(Debug)]
pub struct Adapt(DeviceLaw);
impl Adapt {
    pub fn new(law: DeviceLaw) -> Self {
        Self(law)
    }
    pub fn law(&self) -> DeviceLaw {
        self.0
    }
    pub fn observe(&mut self, _: u64, _: u64, _: u64) {}
}
