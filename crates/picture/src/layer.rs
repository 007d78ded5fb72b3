//! A picture that may be transparent.

use crate::Picture;

/// A picture, and how much of each pixel there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub picture: Picture,
    /// `height * width` bytes, 0 for nothing and 255 for all of it; `None` where all of every pixel is there.
    pub alpha: Option<Vec<u8>>,
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
        let pixels = self.picture.rgb.as_chunks::<3>().0.iter().zip(alpha);
        Some(pixels.flat_map(|(&[r, g, b], &a)| [r, g, b, a]).collect())
    }

    /// The picture before a background of one colour.
    pub fn before(&self, colour: [u8; 3]) -> Picture {
        self.over(|_| colour)
    }

    /// The picture before another one, which is enlarged or reduced until it covers this one.
    pub fn before_picture(&self, background: &Picture) -> Picture {
        let background = background.covering(self.picture.width, self.picture.height);
        let pixels = background.rgb.as_chunks::<3>().0;
        self.over(|i| pixels[i])
    }

    fn over(&self, background: impl Fn(usize) -> [u8; 3]) -> Picture {
        let mut picture = self.picture.clone();
        let Some(alpha) = &self.alpha else {
            return picture;
        };
        for (i, (pixel, alpha)) in picture.rgb.as_chunks_mut::<3>().0.iter_mut().zip(alpha).enumerate() {
            for (value, behind) in pixel.iter_mut().zip(background(i)) {
                let sum = u32::from(*value) * u32::from(*alpha) + u32::from(behind) * u32::from(255 - *alpha);
                *value = ((sum + 127) / 255) as u8;
            }
        }
        picture
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
            alpha: Some(vec![255, 51]),
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
            alpha: Some(vec![255; 2]),
            ..half_there()
        };
        let bytes = encode_layer(&layer, Format::Png, QUALITY, None).unwrap();
        assert_eq!(Layer::decode_at_most(&bytes, "file", 2).unwrap().alpha, None);
    }
}
