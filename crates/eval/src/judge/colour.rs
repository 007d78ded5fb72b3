//! Which colours a thing has, and under which light it is seen: what decides by which name its colour goes.

use super::head::CELLS;
use crate::features::{FINE, MOSAIC};

/// Steps of a colour's lightness, and of each of the two axes of its tint.
const LIGHTS: usize = 4;
const TINTS: usize = 6;
/// Greatest tint on an axis that is told from greater ones.
const REACH: f32 = 0.24;
/// A histogram, and the means of the thing, of what is above its middle and of what is below, without it.
pub(crate) const PALETTE: usize = LIGHTS * TINTS * TINTS + 9;

/// Red, green and blue to Oklab (Ottosson 2020): lightness 0 to 1, and two axes of tint around zero.
fn oklab(rgb: [u8; 3]) -> [f32; 3] {
    let [r, g, b] = rgb.map(|v| {
        let v = f32::from(v) / 255.0;
        if v <= 0.04045 {
            v / 12.92
        } else {
            ((v + 0.055) / 1.055).powf(2.4)
        }
    });
    let l = (0.412_221_47 * r + 0.536_332_54 * g + 0.051_445_99 * b).cbrt();
    let m = (0.211_903_5 * r + 0.680_699_5 * g + 0.107_396_96 * b).cbrt();
    let s = (0.088_302_46 * r + 0.281_718_84 * g + 0.629_978_7 * b).cbrt();
    [
        0.210_454_26 * l + 0.793_617_8 * m - 0.004_072_047 * s,
        1.977_998_5 * l - 2.428_592_2 * m + 0.450_593_7 * s,
        0.025_904_037 * l + 0.782_771_77 * m - 0.808_675_77 * s,
    ]
}

/// The two nearest of `steps` evenly spaced places on 0 to 1, and their shares.
fn between(v: f32, steps: usize) -> [(usize, f32); 2] {
    let at = v.clamp(0.0, 1.0) * (steps - 1) as f32;
    let low = (at as usize).min(steps - 2);
    let share = at - low as f32;
    [(low, 1.0 - share), (low + 1, share)]
}

/// Evidence at a pixel of the mosaic, between the middles of the cells around it.
fn smooth(map: &[f32], x: usize, y: usize) -> f32 {
    let at = |v: usize| {
        between(
            ((v as f32 + 0.5) * FINE as f32 / MOSAIC as f32 - 0.5) / (FINE - 1) as f32,
            FINE,
        )
    };
    let mut sum = 0.0;
    for (row, down) in at(y) {
        for (column, across) in at(x) {
            sum += down * across * map[row * FINE + column];
        }
    }
    sum
}

/// `mosaic`: `[MOSAIC, MOSAIC, 3]`; `own` and `all`, `[CELLS]`: how much each cell shows of the thing, and of any thing.
pub(crate) fn palette(mosaic: &[u8], own: &[f32], all: &[f32]) -> Vec<f32> {
    let evidence: Vec<f32> = (0..CELLS).map(|cell| own[cell] + 0.1 * all[cell]).collect();
    let mut histogram = vec![0.0f32; LIGHTS * TINTS * TINTS];
    let mut means = [[0.0f32; 3]; 3];
    let mut weights = [1e-6f32; 3];
    for (i, rgb) in mosaic.chunks_exact(3).enumerate() {
        let (x, y) = (i % MOSAIC, i / MOSAIC);
        let colour = oklab([rgb[0], rgb[1], rgb[2]]);
        // Squared: the edges of a thing are mixed with what is behind it.
        let weight = smooth(&evidence, x, y).powi(2);
        let behind = (1.0 - smooth(all, x, y)).max(0.0).powi(2);
        let half = 1 + usize::from(2 * y >= MOSAIC);
        for (mean, v) in means[0].iter_mut().zip(colour) {
            *mean += weight * v;
        }
        for (mean, v) in means[half].iter_mut().zip(colour) {
            *mean += behind * v;
        }
        weights[0] += weight;
        weights[half] += behind;
        let tint = |v: f32| between(0.5 + 0.5 * v / REACH, TINTS);
        for (light, a) in between(colour[0], LIGHTS) {
            for (red, b) in tint(colour[1]) {
                for (yellow, c) in tint(colour[2]) {
                    histogram[(light * TINTS + red) * TINTS + yellow] += weight * a * b * c;
                }
            }
        }
    }
    // Of about the size of the other inputs.
    let mut values: Vec<f32> = histogram.into_iter().map(|v| 4.0 * v / weights[0]).collect();
    for (mean, weight) in means.into_iter().zip(weights) {
        values.extend([mean[0], 4.0 * mean[1], 4.0 * mean[2]].map(|v| v / weight));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oklab_of_white_black_and_red_is_as_published() {
        for (rgb, expected) in [
            ([255, 255, 255], [1.0, 0.0, 0.0]),
            ([0, 0, 0], [0.0, 0.0, 0.0]),
            ([255, 0, 0], [0.628, 0.225, 0.126]),
        ] {
            for (found, expected) in oklab(rgb).into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-3, "{rgb:?}: {found} {expected}");
            }
        }
    }

    #[test]
    fn a_things_palette_is_its_own_and_not_that_of_what_is_behind() {
        let inside = |x: usize, y: usize| (20..44).contains(&x) && (20..44).contains(&y);
        let pixel = |i: usize| {
            if inside(i % MOSAIC, i / MOSAIC) {
                [200, 30, 30]
            } else {
                [40, 60, 200]
            }
        };
        let mosaic: Vec<u8> = (0..MOSAIC * MOSAIC).flat_map(pixel).collect();
        let own: Vec<f32> = (0..CELLS)
            .map(|cell| f32::from(u8::from(inside(cell % FINE * 4 + 2, cell / FINE * 4 + 2))))
            .collect();
        let values = palette(&mosaic, &own, &own);
        assert_eq!(values.len(), PALETTE);
        let means = &values[PALETTE - 9..];
        assert!(means[1] > 0.4, "red: {means:?}");
        assert!(means[5] < -0.4 && means[8] < -0.4, "blue above and below: {means:?}");
    }
}
