//! Pixels of a line as words in which neighbours meet: what products read whose depth is the pixels.

use crate::cpu::bf16::pair;
use crate::cpu::interleave::copy_few;
#[cfg(target_arch = "x86_64")]
use crate::cpu::level::{Level, level};
use crate::cpu::math::dispatch;

/// Which words are made of a line of pixels of `channels` values: for pixel `start`, `start + apart` and so on, the `block`
/// channels from `first` on; each word of this pixel and the one `next` after it. There is nothing but zeros outside of the line and
/// past the channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slide {
    pub channels: usize,
    pub first: usize,
    pub block: usize,
    pub start: isize,
    pub apart: usize,
    pub next: usize,
}

impl Slide {
    /// The places in the output whose two pixels both lie in a line of `pixels`.
    fn inside(&self, pixels: usize, places: usize) -> std::ops::Range<usize> {
        let before = self.start.min(0).unsigned_abs().div_ceil(self.apart);
        let reach = self.start + self.next as isize;
        let end = (pixels as isize - reach).max(0) as usize;
        let end = end.div_ceil(self.apart).min(places);
        before.min(end)..end
    }
}

/// How two values become a word.
trait Meet {
    type Word: Copy + Default;

    fn one(low: f32, high: f32) -> Self::Word;

    /// Of neighbouring values, as many as there is room for.
    fn run(low: &[f32], high: &[f32], out: &mut [Self::Word]);
}

/// The first value alone.
struct Values;

impl Meet for Values {
    type Word = f32;

    #[inline(always)]
    fn one(low: f32, _: f32) -> f32 {
        low
    }

    #[inline(always)]
    fn run(low: &[f32], _: &[f32], out: &mut [f32]) {
        copy_few(&low[..out.len()], out);
    }
}

/// Both in bf16.
struct Pairs;

impl Meet for Pairs {
    type Word = u32;

    #[inline(always)]
    fn one(low: f32, high: f32) -> u32 {
        pair(low, high)
    }

    #[inline(always)]
    fn run(low: &[f32], high: &[f32], out: &mut [u32]) {
        for ((word, x), y) in out.iter_mut().zip(low).zip(high) {
            *word = pair(*x, *y);
        }
    }
}

#[inline(always)]
fn slide<M: Meet>(line: &[f32], s: &Slide, out: &mut [M::Word]) {
    let (pixels, places) = (line.len() / s.channels, out.len() / s.block);
    let inside = s.inside(pixels, places);
    let pixel = |place: usize| s.start + (place * s.apart) as isize;
    let width = s.block.min(s.channels - s.first);
    let values = |q: isize| {
        let q = usize::try_from(q).ok().filter(|q| *q < pixels)?;
        Some(&line[q * s.channels + s.first..][..width])
    };
    for place in (0..inside.start).chain(inside.end..places) {
        let out = &mut out[place * s.block..][..s.block];
        out.fill(M::Word::default());
        let (here, after) = (values(pixel(place)), values(pixel(place) + s.next as isize));
        for (i, word) in out[..width].iter_mut().enumerate() {
            *word = M::one(here.map_or(0.0, |v| v[i]), after.map_or(0.0, |v| v[i]));
        }
    }
    if inside.is_empty() {
        return;
    }
    let here = &line[pixel(inside.start) as usize * s.channels + s.first..];
    let after = &here[s.next * s.channels..];
    let step = s.apart * s.channels;
    let out = &mut out[inside.start * s.block..inside.end * s.block];
    if step == s.block && width == s.block {
        return M::run(here, after, out);
    }
    for (i, out) in out.chunks_exact_mut(s.block).enumerate() {
        let (words, rest) = out.split_at_mut(width);
        M::run(&here[i * step..], &after[i * step..], words);
        rest.fill(M::Word::default());
    }
}

#[inline(always)]
fn slide_values_body<const FMA: bool>(line: &[f32], s: &Slide, out: &mut [f32]) {
    slide::<Values>(line, &Slide { next: 0, ..*s }, out);
}

#[inline(always)]
fn slide_pairs_body<const FMA: bool>(line: &[f32], s: &Slide, out: &mut [u32]) {
    slide::<Pairs>(line, s, out);
}

dispatch! {
    /// Words of one value, the pixel's own.
    pub(crate) fn slide_values(line: &[f32], s: &Slide, out: &mut [f32]) = slide_values_body
}

dispatch! {
    fn slide_pairs_anywhere(line: &[f32], s: &Slide, out: &mut [u32]) = slide_pairs_body
}

/// Words of two values in bf16, the pixel's own in the low half.
pub(crate) fn slide_pairs(line: &[f32], s: &Slide, out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512Bf16 {
        // SAFETY: the processor has the features.
        return unsafe { x86::slide_pairs(line, s, out) };
    }
    slide_pairs_anywhere(line, s, out);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Meet, Slide, pair, slide};
    use crate::cpu::bf16::x86::meet;

    /// [`super::Pairs`] with the processor's own rounding.
    struct Pairs;

    impl Meet for Pairs {
        type Word = u32;

        #[inline(always)]
        fn one(low: f32, high: f32) -> u32 {
            pair(low, high)
        }

        #[inline(always)]
        fn run(low: &[f32], high: &[f32], out: &mut [u32]) {
            // SAFETY: only used below.
            unsafe { meet(low, high, out) };
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn slide_pairs(line: &[f32], s: &Slide, out: &mut [u32]) {
        slide::<Pairs>(line, s, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_of_a_pixel_and_its_neighbour_or_zero() {
        for (channels, first, block) in [
            (3, 0, 3),
            // As wide as what lies two pixels apart.
            (3, 0, 6),
            (16, 0, 32),
            (16, 0, 16),
            (20, 8, 8),
            (20, 16, 8),
            (48, 16, 16),
            (70, 48, 48),
        ] {
            for (start, apart, next, places) in
                [(-1, 1, 1, 9), (0, 2, 1, 4), (-3, 1, 2, 14), (2, 3, 1, 5), (0, 1, 9, 3)]
            {
                let pixels = 7isize;
                let line: Vec<f32> = (0..7 * channels).map(|i| i as f32 - 20.0).collect();
                let s = Slide {
                    channels,
                    first,
                    block,
                    start,
                    apart,
                    next,
                };
                let at = |q: isize, c: usize| {
                    let inside = (0..pixels).contains(&q) && first + c < channels;
                    if inside {
                        line[q as usize * channels + first + c]
                    } else {
                        0.0
                    }
                };
                let (mut values, mut pairs) = (vec![f32::NAN; places * block], vec![1; places * block]);
                slide_values(&line, &s, &mut values);
                slide_pairs(&line, &s, &mut pairs);
                for i in 0..places * block {
                    let (q, c) = (start + (i / block * apart) as isize, i % block);
                    assert_eq!(values[i], at(q, c), "{s:?}, value {i}");
                    assert_eq!(pairs[i], pair(at(q, c), at(q + next as isize, c)), "{s:?}, pair {i}");
                }
            }
        }
    }
}
