//! Pictures of one channel: masks, and what of a picture is transparent.

use crate::{Error, Layer, Picture};

/// An 8-bit picture of one channel, row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gray {
    pub width: usize,
    pub height: usize,
    /// `height * width` bytes.
    pub values: Vec<u8>,
}

/// Columns and rows from the first two to before the last two, in pixels; the corners of what is cut out may lie outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub left: usize,
    pub top: usize,
    pub right: usize,
    pub bottom: usize,
}

impl Region {
    pub fn width(&self) -> usize {
        self.right - self.left
    }

    pub fn height(&self) -> usize {
        self.bottom - self.top
    }
}

impl Gray {
    /// One value everywhere.
    pub fn flat(width: usize, height: usize, value: u8) -> Self {
        let values = vec![value; width * height];
        Self { width, height, values }
    }

    /// How bright a picture is (ITU-R 601-2, in whole numbers as Pillow computes it).
    pub fn of(picture: &Picture) -> Self {
        let bright = |rgb: &[u8]| {
            let [red, green, blue] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
            ((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16) as u8
        };
        Self {
            width: picture.width,
            height: picture.height,
            values: picture.rgb.chunks_exact(3).map(bright).collect(),
        }
    }

    /// Decodes a mask's file: how bright it is, or, where it is transparent anywhere, how transparent.
    pub fn decode_mask(bytes: &[u8], name: &str, max_pixels: usize) -> Result<Self, Error> {
        let Layer { picture, alpha } = Layer::decode_at_most(bytes, name, max_pixels)?;
        Ok(alpha.map_or_else(|| Self::of(&picture), Self::inverted))
    }

    /// The same in three equal channels.
    pub fn to_picture(&self) -> Picture {
        Picture {
            width: self.width,
            height: self.height,
            rgb: self.values.iter().flat_map(|&value| [value; 3]).collect(),
        }
    }

    /// White becomes black.
    #[must_use]
    pub fn inverted(mut self) -> Self {
        self.values.iter_mut().for_each(|value| *value = 255 - *value);
        self
    }

    /// White where it was 128 or more, else black.
    #[must_use]
    pub fn binarized(mut self) -> Self {
        let whole = |value: &mut u8| *value = if *value >= 128 { 255 } else { 0 };
        self.values.iter_mut().for_each(whole);
        self
    }

    /// Softened by what three boxes make of a Gaussian of this deviation in pixels, as Pillow does it; 0 leaves it as it is.
    #[must_use]
    pub fn blurred(self, sigma_px: f32) -> Self {
        if sigma_px <= 0.0 {
            return self;
        }
        let (width, height) = (self.width, self.height);
        let buffer = image::GrayImage::from_raw(width as u32, height as u32, self.values).unwrap_or_default();
        let values = image::imageops::fast_blur(&buffer, sigma_px).into_raw();
        Self { width, height, values }
    }

    /// White reaches further by this many pixels each way, or less far where that is below zero (in squares).
    #[must_use]
    pub fn grown(self, by_px: isize) -> Self {
        let reach = by_px.unsigned_abs();
        if reach == 0 {
            return self;
        }
        let larger = by_px > 0;
        let (width, height) = (self.width, self.height);
        let line = |values: &[u8]| widest(values, reach, larger);
        let rows: Vec<u8> = self.values.chunks_exact(width.max(1)).flat_map(line).collect();
        let mut values = rows.clone();
        for x in 0..width {
            let column: Vec<u8> = (0..height).map(|y| rows[y * width + x]).collect();
            for (y, value) in line(&column).into_iter().enumerate() {
                values[y * width + x] = value;
            }
        }
        Self { width, height, values }
    }

    /// At another size (Lanczos).
    #[must_use]
    pub fn resized(&self, width: usize, height: usize) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        Self::of(&self.to_picture().resized(width, height))
    }

    /// The smallest region with all that is not black; `None` of a black one.
    pub fn bounds(&self) -> Option<Region> {
        let row = |y: &usize| {
            self.values[y * self.width..][..self.width]
                .iter()
                .any(|&value| value > 0)
        };
        let column = |x: &usize| self.values.iter().skip(*x).step_by(self.width).any(|&value| value > 0);
        let (top, left) = ((0..self.height).find(row)?, (0..self.width).find(column)?);
        Some(Region {
            left,
            top,
            right: (0..self.width).rfind(column)? + 1,
            bottom: (0..self.height).rfind(row)? + 1,
        })
    }

    /// What lies in `region`.
    #[must_use]
    pub fn cut(&self, region: Region) -> Self {
        let row = |y: usize| &self.values[y * self.width + region.left..][..region.width()];
        Self {
            width: region.width(),
            height: region.height(),
            values: (region.top..region.bottom).flat_map(row).copied().collect(),
        }
    }
}

/// The largest value within `reach` of each, or the smallest; windows double until they are long enough.
fn widest(values: &[u8], reach: usize, largest: bool) -> Vec<u8> {
    let outside = vec![if largest { 0 } else { 255 }; reach];
    let mut line = [&outside[..], values, &outside[..]].concat();
    let (window, mut covered) = (2 * reach + 1, 1);
    while covered < window {
        let shift = covered.min(window - covered);
        for i in 0..line.len() - shift {
            let (here, there) = (line[i], line[i + shift]);
            line[i] = if largest { here.max(there) } else { here.min(there) };
        }
        covered += shift;
    }
    line.truncate(values.len());
    line
}

impl Picture {
    /// What lies in `region`.
    #[must_use]
    pub fn cut(&self, region: Region) -> Self {
        let row = |y: usize| &self.rgb[3 * (y * self.width + region.left)..][..3 * region.width()];
        Self {
            width: region.width(),
            height: region.height(),
            rgb: (region.top..region.bottom).flat_map(row).copied().collect(),
        }
    }

    /// `over` where `mask` is white, this picture where it is black, and between as much of both; all of one size.
    #[must_use]
    pub fn under(&self, over: &Self, mask: &Gray) -> Self {
        let pixels = self.rgb.chunks_exact(3).zip(over.rgb.chunks_exact(3)).zip(&mask.values);
        let mixed = pixels.flat_map(|((below, above), &share)| {
            let share = u32::from(share);
            let mix =
                |i: usize| ((u32::from(above[i]) * share + u32::from(below[i]) * (255 - share) + 127) / 255) as u8;
            [mix(0), mix(1), mix(2)]
        });
        Self {
            width: self.width,
            height: self.height,
            rgb: mixed.collect(),
        }
    }

    /// Puts `piece` where its left upper corner is at these pixels.
    pub fn put(&mut self, piece: &Self, left: usize, top: usize) {
        let columns = piece.width.min(self.width.saturating_sub(left));
        for y in 0..piece.height.min(self.height.saturating_sub(top)) {
            let to = 3 * ((top + y) * self.width + left);
            let from = 3 * y * piece.width;
            self.rgb[to..to + 3 * columns].copy_from_slice(&piece.rgb[from..from + 3 * columns]);
        }
    }

    /// With a margin of these pixels (left, top, right, bottom) that repeats the pixels of the edge, and a mask that is white
    /// there: what outpainting starts from.
    pub fn with_margin(&self, [left, top, right, bottom]: [usize; 4]) -> (Self, Gray) {
        let (width, height) = (self.width + left + right, self.height + top + bottom);
        let source = |at: usize, before: usize, side: usize| at.saturating_sub(before).min(side.saturating_sub(1));
        let mut rgb = Vec::with_capacity(3 * width * height);
        let mut mask = Gray::flat(width, height, 255);
        for y in 0..height {
            for x in 0..width {
                let from = 3 * (source(y, top, self.height) * self.width + source(x, left, self.width));
                rgb.extend_from_slice(&self.rgb[from..from + 3]);
                let inside = (left..left + self.width).contains(&x) && (top..top + self.height).contains(&y);
                mask.values[y * width + x] = if inside { 0 } else { 255 };
            }
        }
        (Self { width, height, rgb }, mask)
    }

    /// What is white in `mask` becomes what the rest suggests: averages of ever larger squares, as near as there are any.
    #[must_use]
    pub fn filled(&self, mask: &Gray) -> Self {
        let weights = mask.values.iter().map(|&value| 1.0 - f32::from(value) / 255.0);
        let pixels = self.rgb.chunks_exact(3).zip(weights);
        let level = pixels.map(|(rgb, w)| [f32::from(rgb[0]) * w, f32::from(rgb[1]) * w, f32::from(rgb[2]) * w, w]);
        let filled = spread(&level.collect::<Vec<_>>(), self.width, self.height);
        Self {
            width: self.width,
            height: self.height,
            rgb: filled
                .iter()
                .flat_map(|rgb| rgb.map(|v| v.round().clamp(0.0, 255.0) as u8))
                .collect(),
        }
    }
}

/// Colours of premultiplied pixels, where they weigh less than one filled up from the picture of half the size.
fn spread(level: &[[f32; 4]], width: usize, height: usize) -> Vec<[f32; 3]> {
    let own = |pixel: &[f32; 4]| std::array::from_fn(|i| pixel[i] / pixel[3].max(1e-6));
    if width <= 1 && height <= 1 || level.iter().all(|pixel| pixel[3] >= 1.0) {
        return level.iter().map(own).collect();
    }
    let (half_w, half_h) = (width.div_ceil(2), height.div_ceil(2));
    let mut half = vec![[0.0_f32; 4]; half_w * half_h];
    for (i, pixel) in level.iter().enumerate() {
        let sum = &mut half[(i / width / 2) * half_w + i % width / 2];
        (0..4).for_each(|c| sum[c] += pixel[c]);
    }
    // What weighs anything is known there: four pixels that weigh one together are as good as one.
    for sum in &mut half {
        let weight = sum[3].max(1.0);
        *sum = sum.map(|value| value / weight);
    }
    let below = spread(&half, half_w, half_h);
    let pixel = |(i, pixel): (usize, &[f32; 4])| {
        let rest = below[(i / width / 2) * half_w + i % width / 2];
        std::array::from_fn(|c| pixel[c] + (1.0 - pixel[3]) * rest[c])
    };
    level.iter().enumerate().map(pixel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square() -> Gray {
        let mut mask = Gray::flat(8, 6, 0);
        for y in 2..4 {
            mask.values[y * 8 + 3..y * 8 + 6].fill(200);
        }
        mask
    }

    #[test]
    fn a_masks_bounds_are_those_of_all_that_is_not_black() {
        let region = square().bounds().unwrap();
        assert_eq!(
            region,
            Region {
                left: 3,
                top: 2,
                right: 6,
                bottom: 4
            }
        );
        assert_eq!(square().cut(region), Gray::flat(3, 2, 200));
        assert!(Gray::flat(4, 4, 0).bounds().is_none());
    }

    #[test]
    fn a_mask_grows_and_shrinks_in_squares() {
        let grown = square().grown(1).bounds().unwrap();
        assert_eq!((grown.left, grown.top, grown.right, grown.bottom), (2, 1, 7, 5));
        assert_eq!(square().grown(1).grown(-1), square());
        assert!(square().grown(-1).bounds().is_none());
    }

    #[test]
    fn a_blurred_mask_is_wider_and_no_blur_is_too_wide_for_a_small_one() {
        let soft = square().blurred(1.0);
        let bounds = soft.bounds().unwrap();
        assert!(bounds.left < 3 && bounds.right > 6, "{bounds:?}");
        assert!(soft.values.iter().max() < square().values.iter().max());
        assert_eq!(square().blurred(0.0), square());
        assert_eq!(square().blurred(256.0).values.len(), 48);
    }

    #[test]
    fn a_margin_repeats_the_edge_and_is_what_the_mask_has() {
        let picture = Picture {
            width: 2,
            height: 1,
            rgb: vec![1, 2, 3, 4, 5, 6],
        };
        let (larger, mask) = picture.with_margin([1, 1, 0, 0]);
        assert_eq!((larger.width, larger.height), (3, 2));
        assert_eq!(larger.rgb, [1, 2, 3, 1, 2, 3, 4, 5, 6].repeat(2));
        assert_eq!(mask.values, [255, 255, 255, 255, 0, 0]);
    }

    #[test]
    fn what_is_masked_is_filled_from_what_lies_around_it() {
        let mut picture = Gray::flat(16, 16, 100).to_picture();
        let mut mask = Gray::flat(16, 16, 0);
        for at in [5 * 16 + 5, 5 * 16 + 6, 6 * 16 + 5] {
            picture.rgb[3 * at..3 * at + 3].fill(255);
            mask.values[at] = 255;
        }
        assert_eq!(picture.filled(&mask), Gray::flat(16, 16, 100).to_picture());
        assert_eq!(picture.under(&picture, &mask), picture);
        assert_eq!(Gray::of(&picture).values[5 * 16 + 5], 255);
    }
}
