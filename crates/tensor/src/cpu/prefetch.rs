//! Memory that will be read soon, fetched while something is computed.

/// Values in a cache line.
const LINE: usize = 16;

/// Values that are fetched into L2 in equal parts.
pub(crate) struct Ahead<'a> {
    rest: &'a [f32],
    part: usize,
}

impl<'a> Ahead<'a> {
    /// All of `values` in `parts` parts.
    pub fn of(values: &'a [f32], parts: usize) -> Self {
        let part = values.len().div_ceil(parts.max(1)).next_multiple_of(LINE);
        Self { rest: values, part }
    }

    /// Fetches the next part.
    #[inline(always)]
    pub fn fetch(&mut self) {
        let (part, rest) = self.rest.split_at(self.part.min(self.rest.len()));
        self.rest = rest;
        #[cfg(target_arch = "x86_64")]
        for line in part.chunks(LINE) {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: prefetching changes nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = part;
    }
}
