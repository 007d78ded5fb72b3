//! Which answers are worth keeping (segment-anything `automatic_mask_generator.py`, 1.0, with its thresholds).

/// How well the network has to think that a mask fits.
const SURE_SCORE: f32 = 0.88;
/// Share of the pixels above `+STABLE_OFFSET` among those above `-STABLE_OFFSET`.
const STABLE_SHARE: f32 = 0.95;
const STABLE_OFFSET: f32 = 1.0;
/// Bounds that share more than this of what they cover together are of the same thing.
const SAME_BOUNDS: f32 = 0.7;

/// An answer at the decoder's size.
pub(super) struct Found {
    pub logits: Vec<f32>,
    pub side: usize,
    pub score: f32,
    /// Left, top, right, bottom, the last two behind the last pixels.
    bounds: [usize; 4],
    stability: f32,
}

impl Found {
    /// `[width, height]` of the square are picture.
    pub fn new(logits: &[f32], side: usize, [width, height]: [usize; 2], score: f32) -> Self {
        let mut bounds = [side, side, 0, 0];
        let (mut surely, mut perhaps) = (0, 0);
        for (i, value) in logits.iter().enumerate() {
            let (x, y) = (i % side, i / side);
            if x >= width || y >= height {
                continue;
            }
            surely += usize::from(*value > STABLE_OFFSET);
            perhaps += usize::from(*value > -STABLE_OFFSET);
            if *value > 0.0 {
                bounds = [
                    bounds[0].min(x),
                    bounds[1].min(y),
                    bounds[2].max(x + 1),
                    bounds[3].max(y + 1),
                ];
            }
        }
        Self {
            logits: logits.to_vec(),
            side,
            score,
            bounds,
            stability: surely as f32 / perhaps.max(1) as f32,
        }
    }

    pub fn is_sure(&self) -> bool {
        self.score > SURE_SCORE && self.stability > STABLE_SHARE && self.bounds[2] > self.bounds[0]
    }

    /// Of the bounds, intersection over union.
    fn overlap(&self, other: &Self) -> f32 {
        let area =
            |[left, top, right, bottom]: [usize; 4]| (right.saturating_sub(left) * bottom.saturating_sub(top)) as f32;
        let (a, b) = (self.bounds, other.bounds);
        let shared = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
        shared / (area(a) + area(b) - shared).max(1.0)
    }
}

/// The surest first, without those whose bounds are nearly those of a surer one.
pub(super) fn without_doubles(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Found> = Vec::new();
    for one in found {
        if kept.iter().all(|other| one.overlap(other) <= SAME_BOUNDS) {
            kept.push(one);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(from: usize, to: usize, score: f32) -> Found {
        let inside = |i: usize| (from..to).contains(&(i % 16)) && (from..to).contains(&(i / 16));
        let logits: Vec<f32> = (0..256).map(|i| if inside(i) { 5.0 } else { -5.0 }).collect();
        Found::new(&logits, 16, [16, 16], score)
    }

    #[test]
    fn of_nearly_equal_answers_the_surest_stays() {
        let found = vec![
            square(2, 10, 0.9),
            square(2, 11, 0.95),
            square(12, 15, 0.89),
            square(2, 5, 0.5),
        ];
        assert!(found[0].is_sure() && !found[3].is_sure());
        let kept = without_doubles(found);
        let scores: Vec<f32> = kept.iter().map(|found| found.score).collect();
        assert_eq!(scores, [0.95, 0.89, 0.5]);
    }

    #[test]
    fn what_hardly_rises_above_zero_is_not_sure() {
        let logits: Vec<f32> = (0..256).map(|i| if i % 16 < 8 { 0.5 } else { -5.0 }).collect();
        assert!(!Found::new(&logits, 16, [16, 16], 0.99).is_sure());
        // Nor is what lies beyond the picture.
        let logits = [vec![-5.0; 128], vec![5.0; 128]].concat();
        assert!(!Found::new(&logits, 16, [16, 8], 0.99).is_sure());
    }
}
