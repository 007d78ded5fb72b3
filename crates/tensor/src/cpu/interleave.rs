//! Rows side by side: how a panel is made of strips of memory.

/// Most strips of a panel: the widest register block of any kernel, in rows or columns.
pub(crate) const MAX_WIDTH: usize = 48;

/// Copies up to `width` strips of equal length into one panel, element by element across strips:
/// `out[k · width + r] = strips[r][k]`, zero for strips that are not there.
pub(crate) fn interleave(strips: &[&[f32]], width: usize, out: &mut [f32]) {
    if strips.len() < width {
        out.chunks_exact_mut(width).for_each(|o| o[strips.len()..].fill(0.0));
    }
    let mut r = 0;
    while let Some(group) = strips.get(r..).and_then(|rest| rest.first_chunk::<4>()) {
        interleave_4(*group, width, &mut out[r..]);
        r += 4;
    }
    if let Some(group) = strips[r..].first_chunk::<2>() {
        interleave_2(*group, width, &mut out[r..]);
        r += 2;
    }
    if let Some(strip) = strips.get(r) {
        for (o, x) in out[r..].iter_mut().step_by(width).zip(*strip) {
            *o = *x;
        }
    }
}

/// Four strips side by side, `out[k · width + r] = strips[r][k]`.
fn interleave_4(strips: [&[f32]; 4], width: usize, out: &mut [f32]) {
    let first = in_registers(&strips, |k, rows| transpose_4x4(rows, width, &mut out[k * width..]));
    let [a, b, c, d] = strips.map(|strip| &strip[first..]);
    let rows = out.chunks_mut(width).skip(first);
    for ((((o, a), b), c), d) in rows.zip(a).zip(b).zip(c).zip(d) {
        o[..4].copy_from_slice(&[*a, *b, *c, *d]);
    }
}

/// Two strips side by side.
fn interleave_2(strips: [&[f32]; 2], width: usize, out: &mut [f32]) {
    let first = in_registers(&strips, |k, rows| transpose_2x4(rows, width, &mut out[k * width..]));
    let [a, b] = strips.map(|strip| &strip[first..]);
    let rows = out.chunks_mut(width).skip(first);
    for ((o, a), b) in rows.zip(a).zip(b) {
        o[..2].copy_from_slice(&[*a, *b]);
    }
}

/// Calls `f` with four values of each strip at a time and returns how many of them it got: none where there is no
/// transposition in registers.
#[inline(always)]
fn in_registers<const N: usize>(strips: &[&[f32]; N], mut f: impl FnMut(usize, [&[f32; 4]; N])) -> usize {
    if !cfg!(target_arch = "x86_64") {
        return 0;
    }
    let blocks = strips.map(|strip| strip.as_chunks::<4>().0);
    let count = blocks.iter().map(|b| b.len()).min().unwrap_or(0);
    let blocks = blocks.map(|b| &b[..count]);
    for i in 0..count {
        f(4 * i, blocks.map(|b| &b[i]));
    }
    4 * count
}

#[cfg(target_arch = "x86_64")]
fn transpose_4x4(rows: [&[f32; 4]; 4], width: usize, out: &mut [f32]) {
    use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
    assert!(out.len() >= 3 * width + 4);
    // SAFETY: SSE is part of every x86-64; each row has four values, and the output's length was just checked.
    unsafe {
        let [mut a, mut b, mut c, mut d] = rows.map(|row| _mm_loadu_ps(row.as_ptr()));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (i, row) in [a, b, c, d].into_iter().enumerate() {
            _mm_storeu_ps(out.as_mut_ptr().add(i * width), row);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn transpose_2x4(rows: [&[f32; 4]; 2], width: usize, out: &mut [f32]) {
    use std::arch::x86_64::{
        _mm_castps_pd, _mm_loadu_ps, _mm_storeh_pd, _mm_storel_pd, _mm_unpackhi_ps, _mm_unpacklo_ps,
    };
    assert!(out.len() >= 3 * width + 2);
    // SAFETY: as above. The moves of 64 bits need no alignment.
    unsafe {
        let [a, b] = rows.map(|row| _mm_loadu_ps(row.as_ptr()));
        for (i, two) in [_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b)].into_iter().enumerate() {
            let at = out.as_mut_ptr().add(2 * i * width);
            _mm_storel_pd(at.cast(), _mm_castps_pd(two));
            _mm_storeh_pd(at.add(width).cast(), _mm_castps_pd(two));
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn transpose_4x4(_: [&[f32; 4]; 4], _: usize, _: &mut [f32]) {}

#[cfg(not(target_arch = "x86_64"))]
fn transpose_2x4(_: [&[f32; 4]; 2], _: usize, _: &mut [f32]) {}

/// Copies a few values to the start of `to`: a call of memcpy for a register row costs more than the copy.
#[inline(always)]
pub(crate) fn copy_few(from: &[f32], to: &mut [f32]) {
    let to = &mut to[..from.len()];
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_ps, _mm_storeu_ps};
        /// Vectors of four, one after the other. Of a loop the compiler would make the call again.
        macro_rules! copy_vectors {
            ($($vector:literal)*) => {
                // SAFETY: SSE is part of every x86-64; both slices have the values of the match below.
                unsafe {
                    $(_mm_storeu_ps(to.as_mut_ptr().add(4 * $vector), _mm_loadu_ps(from.as_ptr().add(4 * $vector)));)*
                }
            };
        }
        match from.len() {
            4 => return copy_vectors!(0),
            8 => return copy_vectors!(0 1),
            12 => return copy_vectors!(0 1 2),
            16 => return copy_vectors!(0 1 2 3),
            32 => return copy_vectors!(0 1 2 3 4 5 6 7),
            48 => return copy_vectors!(0 1 2 3 4 5 6 7 8 9 10 11),
            _ => {}
        }
    }
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_of_any_number_and_length_are_interleaved() {
        for width in [6, 8, 12, 16, 24, 32, 48] {
            for count in 1..=width {
                for len in [1, 2, 4, 5, 11, 16] {
                    let rows: Vec<Vec<f32>> = (0..count)
                        .map(|r| (0..len).map(|k| (1 + r * 100 + k) as f32).collect())
                        .collect();
                    let strips: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                    let mut out = vec![f32::NAN; len * width];
                    interleave(&strips, width, &mut out);
                    for (i, x) in out.iter().enumerate() {
                        let want = rows.get(i % width).map_or(0.0, |row| row[i / width]);
                        assert_eq!(*x, want, "{count} strips of {len} in panels of {width}, value {i}");
                    }
                }
            }
        }
    }
}
