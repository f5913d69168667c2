//! Places in one block of memory for values that live at different times.

/// Values start at multiples of this, a cache line.
pub const ALIGN: usize = 64;

/// Gives out and takes back ranges; the block grows as far as its fullest moment needs.
#[derive(Default)]
pub struct Arena {
    /// Free ranges below the top, by start.
    free: Vec<(usize, usize)>,
    top: usize,
    peak: usize,
}

impl Arena {
    /// The start of a range of `bytes`: the smallest free one that fits, or new memory at the top.
    pub fn take(&mut self, bytes: usize) -> usize {
        let bytes = bytes.max(1).next_multiple_of(ALIGN);
        let fits = self.free.iter().enumerate().filter(|(_, f)| f.1 >= bytes).min_by_key(|(_, f)| f.1);
        if let Some((i, &(start, len))) = fits {
            match len == bytes {
                true => drop(self.free.remove(i)),
                false => self.free[i] = (start + bytes, len - bytes),
            }
            return start;
        }
        // A free range at the very top grows instead of being left behind.
        let start = match self.free.last() {
            Some(&(start, len)) if start + len == self.top => {
                self.free.pop();
                start
            }
            _ => self.top,
        };
        self.top = start + bytes;
        self.peak = self.peak.max(self.top);
        start
    }

    /// Takes a range back.
    pub fn give(&mut self, start: usize, bytes: usize) {
        let mut len = bytes.max(1).next_multiple_of(ALIGN);
        let mut start = start;
        let mut i = self.free.partition_point(|f| f.0 < start);
        if i < self.free.len() && start + len == self.free[i].0 {
            len += self.free[i].1;
            self.free.remove(i);
        }
        if i > 0 && self.free[i - 1].0 + self.free[i - 1].1 == start {
            i -= 1;
            start = self.free[i].0;
            len += self.free[i].1;
            self.free.remove(i);
        }
        self.free.insert(i, (start, len));
    }

    /// Bytes of the whole block.
    pub fn peak(&self) -> usize {
        self.peak
    }
}
