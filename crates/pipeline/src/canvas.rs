//! An initial picture and its mask at the size that is painted, and the way back (diffusers `image_processor.py`:
//! `get_crop_region`, the resize modes `fill` and `crop`, `apply_overlay`).

use crate::mask::MaskFill;
use crate::request::Request;
use prima_picture::{Gray, Picture, Region};

/// What a painter starts from.
pub(crate) struct Canvas {
    pub picture: Picture,
    /// White or black.
    pub mask: Option<Gray>,
    pub fill: MaskFill,
    back: Option<Back>,
}

/// The picture under what was painted.
struct Back {
    original: Picture,
    /// With its softened edge.
    mask: Gray,
    /// What of it was painted; `None` for all.
    region: Option<Region>,
}

impl Canvas {
    /// Of a request with an initial picture, at `width` and `height` in pixels.
    pub fn new(request: &Request, (width, height): (usize, usize)) -> Option<Self> {
        let original = &request.init_image.as_ref()?.picture;
        let Some(mask) = &request.mask else {
            return Some(Self {
                picture: original.resized(width, height),
                mask: None,
                fill: MaskFill::Original,
                back: None,
            });
        };
        let soft = mask.softened();
        let region = mask.padding_px.and_then(|padding| {
            let bounds = soft.bounds()?;
            Some(widened(bounds, padding, (soft.width, soft.height), (width, height)))
        });
        let (picture, small) = match region {
            Some(region) => (
                filling(&original.cut(region), width, height),
                Gray::of(&filling(&soft.cut(region).to_picture(), width, height)),
            ),
            None => (original.resized(width, height), soft.resized(width, height)),
        };
        let mask_seen = small.binarized();
        let picture = match mask.fill {
            MaskFill::Surroundings => picture.filled(&mask_seen),
            MaskFill::Gray => picture.under(&Gray::flat(width, height, 128).to_picture(), &mask_seen),
            _ => picture,
        };
        let comes_back = mask.keeps_original || region.is_some();
        Some(Self {
            picture,
            mask: Some(mask_seen),
            fill: mask.fill,
            back: comes_back.then(|| Back {
                original: original.clone(),
                mask: soft,
                region,
            }),
        })
    }

    /// What was painted as the answer shows it: at the size `finished`, or in its place in the original.
    pub fn finished(&self, painted: Picture, finished: (usize, usize)) -> Picture {
        let Some(back) = &self.back else {
            return painted.resized(finished.0, finished.1);
        };
        if let Some(region) = back.region {
            let mut whole = back.original.clone();
            whole.put(
                &cropped(&painted, region.width(), region.height()),
                region.left,
                region.top,
            );
            back.original.under(&whole, &back.mask)
        } else {
            let (width, height) = finished;
            let original = back.original.resized(width, height);
            original.under(&painted.resized(width, height), &back.mask.resized(width, height))
        }
    }
}

/// `bounds` with a padding, widened to the shape that is painted as far as a picture of `(width, height)` has room.
fn widened(bounds: Region, padding: usize, (width, height): (usize, usize), painted: (usize, usize)) -> Region {
    let mut x = [bounds.left.saturating_sub(padding), (bounds.right + padding).min(width)];
    let mut y = [
        bounds.top.saturating_sub(padding),
        (bounds.bottom + padding).min(height),
    ];
    let (wide, high) = ((x[1] - x[0]) as f64, (y[1] - y[0]) as f64);
    let shape = painted.0 as f64 / painted.1 as f64;
    if wide / high > shape {
        y = longer(y, (wide / shape - high) as usize, height);
    } else {
        x = longer(x, (high * shape - wide) as usize, width);
    }
    Region {
        left: x[0],
        top: y[0],
        right: x[1],
        bottom: y[1],
    }
}

/// A stretch made longer by `more` on both ends, moved to where it lies within `0..most`, and cut if it is longer.
fn longer([start, end]: [usize; 2], more: usize, most: usize) -> [usize; 2] {
    let length = end - start + more;
    let start = start.saturating_sub(more / 2).min(most.saturating_sub(length));
    [start, (start + length).min(most)]
}

/// The whole picture in a frame of another shape.
fn filling(picture: &Picture, width: usize, height: usize) -> Picture {
    let (w, h) = fitted(picture, width, height, false);
    picture.resized(w, h).framed(width, height)
}

/// The frame filled by the picture, which is cut where it has another shape.
fn cropped(picture: &Picture, width: usize, height: usize) -> Picture {
    let (w, h) = fitted(picture, width, height, true);
    let outer = picture.resized(w, h);
    let (left, top) = ((w / 2).saturating_sub(width / 2), (h / 2).saturating_sub(height / 2));
    outer.cut(Region {
        left,
        top,
        right: (left + width).min(w),
        bottom: (top + height).min(h),
    })
}

/// Sides of a picture that lies within a frame, or covers it.
fn fitted(picture: &Picture, width: usize, height: usize, covers: bool) -> (usize, usize) {
    let is_wider = picture.width * height > picture.height * width;
    if is_wider == covers {
        ((picture.width * height / picture.height).max(1), height)
    } else {
        (width, (picture.height * width / picture.width).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masks_surroundings_have_the_shape_that_is_painted_where_there_is_room() {
        let bounds = |left, top, right, bottom| Region {
            left,
            top,
            right,
            bottom,
        };
        let of = |region: Region, padding, painted| widened(region, padding, (200, 100), painted);
        assert_eq!(of(bounds(90, 40, 110, 50), 0, (64, 64)), bounds(90, 35, 110, 55));
        assert_eq!(of(bounds(90, 40, 110, 50), 8, (64, 64)), bounds(82, 27, 118, 63));
        // At the edge it moves, and where the picture ends it is of another shape.
        assert_eq!(of(bounds(0, 90, 40, 100), 0, (64, 64)), bounds(0, 60, 40, 100));
        assert_eq!(of(bounds(0, 0, 200, 10), 0, (64, 64)), bounds(0, 0, 200, 100));
    }

    #[test]
    fn frames_of_another_shape_are_filled_and_cut() {
        let picture = Gray::flat(40, 20, 7).to_picture();
        assert_eq!(fitted(&picture, 64, 64, false), (64, 32));
        assert_eq!(fitted(&picture, 64, 64, true), (128, 64));
        assert_eq!(filling(&picture, 64, 64), Gray::flat(64, 64, 7).to_picture());
        assert_eq!(cropped(&picture, 10, 30), Gray::flat(10, 30, 7).to_picture());
    }
}
