//! A picture that may be transparent.

use crate::{Gray, Picture};

/// A picture, and how much of each pixel there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub picture: Picture,
    /// Of the picture's size, black for nothing and white for all of it; `None` where all of every pixel is there.
    pub alpha: Option<Gray>,
}

impl From<Picture> for Layer {
    fn from(picture: Picture) -> Self {
        Self { picture, alpha: None }
    }
}

impl Layer {
    /// `height * width * 4` bytes, if it is transparent anywhere.
    pub fn rgba(&self) -> Option<Vec<u8>> {
        let alpha = self.alpha.as_ref()?;
        let pixels = self.picture.rgb.as_chunks::<3>().0.iter().zip(&alpha.values);
        Some(pixels.flat_map(|(&[r, g, b], &a)| [r, g, b, a]).collect())
    }

    /// The picture before a background of one colour.
    pub fn before(&self, colour: [u8; 3]) -> Picture {
        let Picture { width, height, .. } = self.picture;
        let rgb = colour.repeat(width * height);
        self.over(|| Picture { width, height, rgb })
    }

    /// The picture before another one, which is enlarged or reduced until it covers this one.
    pub fn before_picture(&self, background: &Picture) -> Picture {
        self.over(|| background.covering(self.picture.width, self.picture.height))
    }

    fn over(&self, background: impl FnOnce() -> Picture) -> Picture {
        match &self.alpha {
            Some(alpha) => background().under(&self.picture, alpha),
            None => self.picture.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, QUALITY, encode_layer};

    fn half_there() -> Layer {
        Layer {
            picture: Picture {
                width: 2,
                height: 1,
                rgb: vec![200, 100, 0, 10, 20, 30],
            },
            alpha: Some(Gray {
                width: 2,
                height: 1,
                values: vec![255, 51],
            }),
        }
    }

    #[test]
    fn transparency_survives_png_and_webp_and_jpeg_shows_white_through_it() {
        let layer = half_there();
        for format in [Format::Png, Format::Webp] {
            let bytes = encode_layer(&layer, format, QUALITY, None).unwrap();
            assert_eq!(Layer::decode_at_most(&bytes, "file", 2).unwrap(), layer, "{format:?}");
        }
        let bytes = encode_layer(&layer, Format::Jpeg, 100, None).unwrap();
        assert_eq!(Layer::decode_at_most(&bytes, "file", 2).unwrap().alpha, None);
        assert_eq!(layer.before([255; 3]).rgb, [200, 100, 0, 206, 208, 210]);
    }

    #[test]
    fn a_picture_that_is_all_there_has_no_alpha() {
        let layer = Layer {
            alpha: Some(Gray::flat(2, 1, 255)),
            ..half_there()
        };
        let bytes = encode_layer(&layer, Format::Png, QUALITY, None).unwrap();
        assert_eq!(Layer::decode_at_most(&bytes, "file", 2).unwrap().alpha, None);
    }
}
