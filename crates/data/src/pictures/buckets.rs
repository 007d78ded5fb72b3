//! Sizes for pictures of many shapes: each is cut to the nearest of a few, all of about the same area (the buckets that SDXL was
//! trained with, Podell et al. 2023, section 2.3), and what was cut is told to the network (section 2.2).

use prima_picture::Picture;

/// The longest shape: width by height and the other way round.
const MOST: f64 = 2.0;

/// Widths and heights of about `side_px` squared pixels, multiples of `multiple_px`, from 1:2 to 2:1.
pub fn buckets(side_px: usize, multiple_px: usize) -> Vec<[usize; 2]> {
    let multiple = multiple_px.max(1);
    let whole = |side: f64| ((side / multiple as f64).round() as usize).max(1) * multiple;
    let area = (side_px * side_px) as f64;
    let mut sizes: Vec<[usize; 2]> = Vec::new();
    let widest = whole(side_px as f64 * MOST.sqrt());
    for width in (multiple..=widest).step_by(multiple) {
        let height = whole(area / width as f64);
        let shape = width as f64 / height as f64;
        if (1.0 / MOST..=MOST).contains(&shape) {
            sizes.push([width, height]);
        }
    }
    let square = [whole(side_px as f64); 2];
    if !sizes.contains(&square) {
        sizes.push(square);
    }
    sizes
}

/// The one of `sizes` whose shape is nearest to that of `size_px`; of equals the first.
pub fn nearest(sizes: &[[usize; 2]], size_px: [usize; 2]) -> Option<[usize; 2]> {
    let shape = |[width, height]: [usize; 2]| (width.max(1) as f64 / height.max(1) as f64).ln();
    let away = |size: &[usize; 2]| (shape(*size) - shape(size_px)).abs();
    sizes.iter().copied().min_by(|a, b| away(a).total_cmp(&away(b)))
}

/// A picture cut to a size.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    pub picture: Picture,
    /// Height and width in pixels before.
    pub original_px: [usize; 2],
    /// Rows and columns that were cut off at the top and at the left, of the picture as it was enlarged or reduced.
    pub crop_px: [usize; 2],
}

/// `picture` enlarged or reduced until it covers `[width, height]`, and cut to that in the middle.
pub fn fitted(picture: &Picture, [width, height]: [usize; 2]) -> Fitted {
    let (cut, crop_px) = picture.covering_at(width, height);
    Fitted {
        picture: cut,
        original_px: [picture.height, picture.width],
        crop_px,
    }
}
