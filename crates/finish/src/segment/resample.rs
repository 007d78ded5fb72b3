//! Sampling a plane of values between its pixels.

/// A plane of `width` x `height` values at another size, whose pixels are `step` pixels of this one apart; beyond the edges the
/// last values go on. Centres of pixels lie at halves, as in torch's `align_corners=False`.
pub(super) fn bilinear(values: &[f32], from: [usize; 2], to: [usize; 2], step: [f32; 2]) -> Vec<f32> {
    let places = |axis: usize| -> Vec<(usize, usize, f32)> {
        let last = from[axis] - 1;
        let place = |i: usize| {
            let at = ((i as f32 + 0.5) * step[axis] - 0.5).clamp(0.0, last as f32);
            let first = (at as usize).min(last);
            (first, (first + 1).min(last), at - first as f32)
        };
        (0..to[axis]).map(place).collect()
    };
    let (columns, rows) = (places(0), places(1));
    let mut out = Vec::with_capacity(to[0] * to[1]);
    for (top, bottom, down) in rows {
        let [top, bottom] = [top, bottom].map(|row| &values[row * from[0]..][..from[0]]);
        out.extend(columns.iter().map(|(left, right, across)| {
            let of = |row: &[f32]| row[*left] + (row[*right] - row[*left]) * across;
            let (above, below) = (of(top), of(bottom));
            above + (below - above) * down
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_twice_as_large_is_as_torch_makes_it() {
        let made = bilinear(&[0.0, 4.0, 8.0, 12.0], [2, 2], [4, 4], [0.5; 2]);
        assert_eq!(made[..4], [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(made[12..], [8.0, 9.0, 11.0, 12.0]);
        assert_eq!(made[4], 2.0);
    }
}
