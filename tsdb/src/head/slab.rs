//! A growing array in pages, so that growing it neither copies nor leaves half of it unused.

/// Entries of a page. 64 series are 9 KiB.
pub(super) const PAGE: usize = 64;

/// The array. It only grows; entries are reused by their owner.
#[derive(Debug)]
pub(super) struct Slab<T> {
    pages: Vec<Box<[T]>>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }
}

impl<T: Default> Slab<T> {
    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE)?.get(at % PAGE)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.pages.get_mut(at / PAGE)?.get_mut(at % PAGE)
    }

    /// The entry, which comes into being with all before it.
    pub(super) fn grow_to(&mut self, at: usize) -> &mut T {
        while self.pages.len() <= at / PAGE {
            self.pages.push((0..PAGE).map(|_| T::default()).collect());
        }
        self.len = self.len.max(at + 1);
        &mut self.pages[at / PAGE][at % PAGE]
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flatten().take(self.len)
    }
}

impl<T: Default> std::ops::Index<usize> for Slab<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.pages[at / PAGE][at % PAGE]
    }
}

impl<T: Default> std::ops::IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pages[at / PAGE][at % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_without_moving() {
        let mut slab = Slab::<u32>::default();
        *slab.grow_to(200) = 7;
        slab[3] = 5;
        assert_eq!((slab.len(), slab[200], slab.get(3), slab.get(300)), (201, 7, Some(&5), None));
        assert_eq!(slab.iter_mut().map(|entry| *entry).sum::<u32>(), 12);
        slab.iter_mut().for_each(|entry| *entry = 1);
        assert_eq!(slab.iter_mut().map(|entry| *entry).sum::<u32>(), 201);
    }
}
