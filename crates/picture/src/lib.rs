//! 8-bit pictures: reading and writing files, what a file says of its making, resizing, contact sheets.

mod edges;
mod error;
mod gray;
mod layer;
mod parameters;
mod read;
mod resample;
mod sheet;
mod write;

pub use edges::{canny, scribble};
pub use error::Error;
pub use gray::{Gray, Region};
pub use layer::Layer;
pub use parameters::Parameters;
pub use read::{Header, MAX_SIDE_PX, MAX_TEXT_BYTES, read_parameters};
pub use sheet::contact_sheet;
pub use write::{Format, QUALITY, encode, encode_gif, encode_layer, encode_png};

/// An 8-bit RGB picture, row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// The same picture at another size (Lanczos, as Pillow does it). One that is many times larger is first averaged down to four times the
    /// size, so that neither time nor memory grows with the product of one picture's width and the other's height.
    #[must_use]
    pub fn resized(&self, width: usize, height: usize) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let between = coarse((self.width, self.height), (width, height));
        if between == (self.width, self.height) {
            return resample::resample(self, width, height);
        }
        let buffer = image::RgbImage::from_raw(self.width as u32, self.height as u32, self.rgb.clone());
        let rgb =
            image::imageops::thumbnail(&buffer.unwrap_or_default(), between.0 as u32, between.1 as u32).into_raw();
        let (wide, high) = between;
        let averaged = Self {
            width: wide,
            height: high,
            rgb,
        };
        resample::resample(&averaged, width, height)
    }

    /// The same picture at another size and shape: enlarged or reduced until it covers that, and cut to it in the middle.
    #[must_use]
    pub fn covering(&self, width: usize, height: usize) -> Self {
        self.covering_at(width, height).0
    }

    /// The same, and how many rows and columns were cut off at the top and at the left.
    #[must_use]
    pub fn covering_at(&self, width: usize, height: usize) -> (Self, [usize; 2]) {
        let scale = (width as f64 / self.width as f64).max(height as f64 / self.height as f64);
        let side = |from: usize, least: usize| ((from as f64 * scale).round() as usize).max(least);
        let whole = self.resized(side(self.width, width), side(self.height, height));
        let (left, top) = ((whole.width - width) / 2, (whole.height - height) / 2);
        let row = |y: usize| &whole.rgb[((top + y) * whole.width + left) * 3..][..width * 3];
        let rgb = (0..height).flat_map(row).copied().collect();
        (Self { width, height, rgb }, [top, left])
    }
}

/// Memory that [`Picture::resized`] needs from one size (width, height) to another, in bytes, the picture itself not counted.
pub fn resize_bytes(from: (usize, usize), to: (usize, usize)) -> usize {
    let between = coarse(from, to);
    let rgb = |(width, height): (usize, usize)| 3usize.saturating_mul(width).saturating_mul(height);
    // The filter goes along the rows first.
    [rgb(from), rgb(between), rgb((to.0, between.1)), rgb(to)]
        .iter()
        .fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

/// The size to which a picture is averaged before the filter.
fn coarse(from: (usize, usize), to: (usize, usize)) -> (usize, usize) {
    let side = |from: usize, to: usize| if from > 8 * to { 4 * to } else { from };
    (side(from.0, to.0), side(from.1, to.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_another_shape_is_cut_in_the_middle_and_not_stretched() {
        // Columns of 0, 100, 100, 0.
        let rgb = [0, 100, 100, 0].repeat(4).into_iter().flat_map(|v| [v; 3]).collect();
        let square = Picture {
            width: 4,
            height: 4,
            rgb,
        };
        let tall = square.covering(2, 4);
        assert_eq!((tall.width, tall.height, tall.rgb), (2, 4, vec![100; 24]));
        let large = square.covering(16, 8);
        assert_eq!((large.width, large.height, large.rgb.len()), (16, 8, 16 * 8 * 3));
    }

    #[test]
    fn a_long_thin_picture_shrinks_to_its_mean() {
        let rgb = (0..16_000).flat_map(|i| [(i % 2 * 200) as u8; 3]).collect();
        let line = Picture {
            width: 16_000,
            height: 1,
            rgb,
        };
        let small = line.resized(8, 512);
        assert_eq!((small.width, small.height, small.rgb.len()), (8, 512, 8 * 512 * 3));
        assert!(
            resize_bytes((16_000, 1), (8, 512)) < 1 << 20,
            "memory does not grow with 16000 * 512"
        );
        assert!(small.rgb.iter().all(|v| v.abs_diff(100) <= 2), "{:?}", &small.rgb[..24]);
    }
}
