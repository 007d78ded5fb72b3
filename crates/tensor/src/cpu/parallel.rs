//! Splitting flat loops over the rayon pool. Chunk sizes depend on the shape alone, so a
//! result does not depend on the number of threads.

use crate::allocator::room;
use rayon::prelude::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Below this many values a loop is not worth waking a thread for.
const PARALLEL_FROM: usize = 1 << 16;
/// Values of one task: fits the second-level cache with its operands.
const CHUNK: usize = 1 << 14;

/// `f(offset, part)` for consecutive parts of `out`, in parallel when it is large.
pub(crate) fn for_chunks<T: Send>(out: &mut [T], f: impl Fn(usize, &mut [T]) + Sync) {
    for_rows(out, 1, f);
}

/// [`for_chunks`] whose parts are whole rows of `width` values; `offset` counts values.
pub(crate) fn for_rows<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    if out.is_empty() {
        return;
    }
    if out.len() < PARALLEL_FROM {
        return f(0, out);
    }
    let size = (CHUNK / width).max(1) * width;
    out.par_chunks_mut(size)
        .enumerate()
        .for_each(|(i, part)| f(i * size, part));
}

/// `len` values in rows of `width`, written by `f(offset, part)` as in [`for_rows`]. Each part is cleared right before, while
/// it is on its way into the cache: memory that is written whole is not cleared in a pass of its own.
pub(crate) fn written_rows(len: usize, width: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = room(len);
    let free = &mut out.spare_capacity_mut()[..len];
    let write = |(i, part): (usize, &mut [MaybeUninit<f32>])| {
        part.fill(MaybeUninit::new(0.0));
        // SAFETY: it was just filled.
        f(i, unsafe { part.assume_init_mut() });
    };
    if len < PARALLEL_FROM {
        write((0, free));
    } else {
        let size = (CHUNK / width).max(1) * width;
        free.par_chunks_mut(size)
            .enumerate()
            .for_each(|(i, part)| write((i * size, part)));
    }
    // SAFETY: the parts cover the first `len` values.
    unsafe { out.set_len(len) };
    out
}

/// Rows of `width` values that one task takes.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// `f(task)` for each task, in order; in parallel if `values` (the work behind all tasks) is large.
pub(crate) fn map_tasks<T: Send>(tasks: usize, values: usize, f: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    if values < PARALLEL_FROM || tasks < 2 {
        (0..tasks).map(f).collect()
    } else {
        (0..tasks).into_par_iter().map(f).collect()
    }
}

/// Below so many multiply-adds a product takes less time than waking a thread for half of it saves.
const PARALLEL_PRODUCT: usize = 1 << 20;

/// `f(task)` for each task; in parallel if the products behind them, in multiply-adds, are large.
pub(crate) fn for_tasks(tasks: usize, multiply_adds: usize, f: impl Fn(usize) + Sync + Send) {
    if multiply_adds < PARALLEL_PRODUCT {
        (0..tasks).for_each(f);
    } else {
        (0..tasks).into_par_iter().for_each(f);
    }
}

/// `len` zeros, written in parallel when there are many: clearing memory is a fair part of an op's time.
pub(crate) fn zeros(len: usize) -> Vec<f32> {
    if len < PARALLEL_FROM {
        return vec![0.0; len];
    }
    let mut out: Vec<f32> = room(len);
    out.spare_capacity_mut()[..len]
        .par_chunks_mut(PARALLEL_FROM)
        .for_each(|part| {
            part.fill(std::mem::MaybeUninit::new(0.0));
        });
    // SAFETY: the first `len` values were just written.
    unsafe { out.set_len(len) };
    out
}

/// `f(i)` for each of `len` values, in parallel when there are many.
pub(crate) fn built(len: usize, f: impl Fn(usize) -> f32 + Sync) -> Vec<f32> {
    let mut out: Vec<f32> = room(len);
    for_chunks(&mut out.spare_capacity_mut()[..len], |at, part| {
        for (i, value) in part.iter_mut().enumerate() {
            value.write(f(at + i));
        }
    });
    // SAFETY: every one of the first `len` values was just written.
    unsafe { out.set_len(len) };
    out
}

/// A copy, made in parallel when it is large.
pub(crate) fn copied(values: &[f32]) -> Vec<f32> {
    if values.len() < PARALLEL_FROM {
        return values.to_vec();
    }
    let mut out: Vec<f32> = room(values.len());
    let parts = out.spare_capacity_mut()[..values.len()].par_chunks_mut(PARALLEL_FROM);
    parts.zip(values.par_chunks(PARALLEL_FROM)).for_each(|(part, values)| {
        part.write_copy_of_slice(values);
    });
    // SAFETY: every one of the first `len` values was just written.
    unsafe { out.set_len(values.len()) };
    out
}

/// The room of a vector, of which every task writes a part of its own.
pub(crate) struct Output<'a> {
    start: *mut f32,
    len: usize,
    buffer: PhantomData<&'a mut Vec<f32>>,
}

// SAFETY: whoever writes sees to it that nobody else has that part.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// All that `buffer` has room for.
    pub fn of(buffer: &'a mut Vec<f32>) -> Self {
        Self {
            start: buffer.as_mut_ptr(),
            len: buffer.capacity(),
            buffer: PhantomData,
        }
    }

    /// Where value number `at` goes.
    pub fn at(&self, at: usize) -> *mut f32 {
        assert!(at < self.len, "a part begins past its buffer");
        // SAFETY: that lies inside.
        unsafe { self.start.add(at) }
    }

    /// # Safety
    /// Nothing else uses this part of the buffer meanwhile.
    pub unsafe fn write(&self, at: usize, values: &[f32]) {
        assert!(at + values.len() <= self.len, "a part ends past its buffer");
        // SAFETY: the part lies inside, and the caller has it alone.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.start.add(at), values.len()) };
    }
}
