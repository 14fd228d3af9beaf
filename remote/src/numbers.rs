//! Tables whose keys are small numbers: a multiplication is hash enough.

use std::hash::{BuildHasher, Hasher};

/// A table by number.
pub(crate) type ByNumber<K, V> = hashbrown::HashMap<K, V, Multiply>;

/// Spreads numbers that follow each other over all bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Multiply;

#[derive(Default)]
pub(crate) struct Product(u64);

impl BuildHasher for Multiply {
    type Hasher = Product;

    fn build_hasher(&self) -> Product {
        Product::default()
    }
}

impl Hasher for Product {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    /// The golden ratio's bits; the upper half, which depends on all bits of the number, is the better one.
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}
