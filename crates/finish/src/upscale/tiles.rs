//! Cutting a picture into parts that overlap, for networks whose memory grows with the picture.

use std::ops::Range;

/// How a picture is cut. Every length is a multiple of what the network's sides have to be multiples of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// About a tile's side without what it shares with others.
    pub core: usize,
    /// Pixels around what is kept of a tile, which the network sees and of which nothing is kept.
    pub context: usize,
    /// Width of the strip around each border in which one tile fades into the next; even.
    pub fade: usize,
    pub multiple: usize,
}

/// One side of a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// What the network is given.
    pub seen: Range<usize>,
    /// What is kept of the result.
    pub kept: Range<usize>,
    /// Pixels from the start of `kept` on in which the tile before fades out.
    pub fade: usize,
}

impl Cut {
    /// The tiles along a side of `length` pixels.
    pub fn spans(&self, length: usize) -> Vec<Span> {
        let count = length.div_ceil(self.core).max(1);
        let border = |i: usize| {
            if i == count {
                length
            } else {
                length * i / count / self.multiple * self.multiple
            }
        };
        let half = self.fade / 2;
        let span = |i: usize| {
            let start = border(i).saturating_sub(if i == 0 { 0 } else { half });
            let end = (border(i + 1) + if i + 1 == count { 0 } else { half }).min(length);
            Span {
                seen: start.saturating_sub(self.context)..(end + self.context).min(length),
                kept: start..end,
                fade: if i == 0 { 0 } else { 2 * half },
            }
        };
        (0..count).map(span).collect()
    }
}

impl Span {
    /// How much of the new tile there is at pixel `at` of what is kept, enlarged `scale` times: from 0 to 1 over the fade.
    pub fn weight(&self, at: usize, scale: usize) -> f32 {
        let fade = self.fade * scale;
        if at >= fade {
            return 1.0;
        }
        (at as f32 + 0.5) / fade as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_side_and_share_only_their_fades() {
        for (length, multiple) in [(1, 1), (100, 1), (129, 1), (1000, 2), (777, 1), (4096, 4)] {
            let cut = Cut {
                core: 128,
                context: 16,
                fade: 8,
                multiple,
            };
            let spans = cut.spans(length);
            assert_eq!(spans[0].kept.start, 0);
            assert_eq!(spans.last().map(|span| span.kept.end), Some(length));
            for pair in spans.windows(2) {
                assert_eq!(pair[0].kept.end - pair[1].kept.start, 8, "{length}: {pair:?}");
                assert!(pair[1].seen.start % multiple == 0 && pair[1].seen.start + 16 == pair[1].kept.start);
            }
            assert!(spans.iter().all(|span| span.seen.len() <= 128 + 8 + 32), "{spans:?}");
        }
    }
}
