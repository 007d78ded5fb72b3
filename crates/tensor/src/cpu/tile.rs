//! What becomes of a register block of results: the epilogue, and its place in the output.

use crate::Activation;
use crate::cpu::activation;
use crate::cpu::math::dispatch;

/// What happens to a finished row of the product: `act(row + bias) + residual`.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    pub bias: Option<&'a [f32]>,
    pub act: Activation,
    pub residual: Option<&'a [f32]>,
}

impl<'a> Epilogue<'a> {
    pub const NONE: Epilogue<'static> = Epilogue {
        bias: None,
        act: Activation::None,
        residual: None,
    };

    /// For the columns `first..` of rows that begin at `offset` in the product.
    pub fn within(&self, first: usize, offset: usize) -> Epilogue<'a> {
        Epilogue {
            bias: self.bias.map(|bias| &bias[first..]),
            act: self.act,
            residual: self.residual.map(|residual| &residual[offset..]),
        }
    }

    /// Whether there is nothing but a bias, if that.
    fn is_bias(&self) -> bool {
        self.act == Activation::None && self.residual.is_none()
    }

    /// On the first `row.len()` columns of row `r` of a product of `stride` columns.
    #[inline(always)]
    pub fn apply(&self, row: &mut [f32], r: usize, stride: usize) {
        if let Some(bias) = self.bias {
            for (x, b) in row.iter_mut().zip(bias) {
                *x += b;
            }
        }
        if self.act != Activation::None {
            activation::apply(self.act, row);
        }
        if let Some(residual) = self.residual {
            for (x, r) in row.iter_mut().zip(&residual[r * stride..]) {
                *x += r;
            }
        }
    }
}

/// Where a tile goes: the first `cols` values of each of `rows` rows, `stride` apart.
pub(crate) struct Place {
    pub start: *mut f32,
    pub stride: usize,
    pub rows: usize,
    pub cols: usize,
}

impl Place {
    /// Has the cache fetch what will be written while the product is computed.
    #[inline(always)]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        for r in 0..self.rows {
            for c in (0..self.cols).step_by(16) {
                // SAFETY: prefetching reads nothing; the place lies inside the output.
                unsafe {
                    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                    _mm_prefetch::<_MM_HINT_T0>(self.start.add(r * self.stride + c).cast());
                }
            }
        }
    }
}

#[inline(always)]
fn put_body<const FMA: bool>(tile: &[f32], nr: usize, place: &Place, add: bool, epilogue: &Epilogue) {
    match nr {
        48 => put_columns::<48>(tile, place, add, epilogue),
        32 => put_columns::<32>(tile, place, add, epilogue),
        16 => put_columns::<16>(tile, place, add, epilogue),
        _ => put_columns::<8>(tile, place, add, epilogue),
    }
}

#[inline(always)]
fn put_columns<const NR: usize>(tile: &[f32], place: &Place, add: bool, epilogue: &Epilogue) {
    // Loops of a fixed length for what most tiles are.
    match place.cols {
        cols if cols == NR => put_exactly::<NR, NR>(tile, place, add, epilogue),
        24 => put_exactly::<NR, 24>(tile, place, add, epilogue),
        16 => put_exactly::<NR, 16>(tile, place, add, epilogue),
        8 => put_exactly::<NR, 8>(tile, place, add, epilogue),
        _ => put_rows::<NR>(tile, place, add, epilogue),
    }
}

#[inline(always)]
fn put_exactly<const NR: usize, const COLS: usize>(tile: &[f32], place: &Place, add: bool, epilogue: &Epilogue) {
    let bias = epilogue
        .bias
        .and_then(|bias| bias.first_chunk::<COLS>())
        .unwrap_or(&[0.0; COLS]);
    // Most of them want at most a bias.
    let is_bias = !add && epilogue.is_bias();
    for (r, values) in tile.as_chunks::<NR>().0.iter().take(place.rows).enumerate() {
        // SAFETY: a place is made for memory of this many rows and columns that nothing else uses meanwhile.
        let start = unsafe { place.start.add(r * place.stride).cast::<[f32; COLS]>() };
        let mut row: [f32; COLS] = std::array::from_fn(|i| values[i.min(NR - 1)]);
        if is_bias {
            row = std::array::from_fn(|i| row[i] + bias[i]);
        } else {
            if add {
                // SAFETY: as above; the place has been written before if the tile is to be added.
                let before = unsafe { start.read_unaligned() };
                row = std::array::from_fn(|i| row[i] + before[i]);
            }
            epilogue.apply(&mut row, r, place.stride);
        }
        // SAFETY: as above.
        unsafe { start.write_unaligned(row) };
    }
}

#[inline(always)]
fn put_rows<const NR: usize>(tile: &[f32], place: &Place, add: bool, epilogue: &Epilogue) {
    let cols = place.cols;
    for (r, values) in tile.as_chunks::<NR>().0.iter().take(place.rows).enumerate() {
        let mut row = *values;
        let row = &mut row[..cols];
        // SAFETY: a place is made for memory of this many rows and columns that nothing else uses meanwhile.
        let start = unsafe { place.start.add(r * place.stride) };
        if add {
            // SAFETY: as above; the place has been written before if the tile is to be added.
            let before = unsafe { std::slice::from_raw_parts(start, cols) };
            for (x, y) in row.iter_mut().zip(before) {
                *x += y;
            }
        }
        epilogue.apply(row, r, place.stride);
        for (c, x) in row.iter().enumerate() {
            // SAFETY: as above. Mostly too few for a call of memcpy.
            unsafe { start.add(c).write(*x) };
        }
    }
}

dispatch! {
    /// Copies or adds a tile to its place, then applies the epilogue to what is there.
    pub(crate) fn put(tile: &[f32], nr: usize, place: &Place, add: bool, epilogue: &Epilogue) = put_body
}
