//! 8-bit pictures and their way into and out of the networks' value range.

use crate::Error;
use image::{DynamicImage, ImageDecoder, ImageReader};
use prima_tensor::{Tensor, picture_bytes};
use serde::{Deserialize, Serialize};
use std::io::Cursor;

/// An 8-bit RGB picture, row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}

/// The largest file an initial picture may unpack to, in bytes.
const MAX_DECODED_BYTES: u64 = 1 << 30;

impl Picture {
    /// Decodes a PNG, JPEG or WebP file, turned upright as its EXIF orientation says; transparency
    /// is dropped. `name` is what an error calls the file.
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self, Error> {
        Self::decode_at_most(bytes, name, usize::MAX)
    }

    /// As [`decode`](Self::decode), but a picture of more than `max_pixels` is refused before its
    /// pixels are unpacked: a bound on memory and time.
    pub fn decode_at_most(bytes: &[u8], name: &str, max_pixels: usize) -> Result<Self, Error> {
        let failed = |reason: String| Error::NotAPicture {
            name: name.to_owned(),
            reason,
        };
        let mut reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|e| failed(e.to_string()))?;
        if reader.format().is_none() {
            return Err(failed("its first bytes are those of no known format".to_owned()));
        }
        let mut limits = image::Limits::default();
        limits.max_alloc = Some(MAX_DECODED_BYTES);
        reader.limits(limits.clone());
        let mut decoder = reader.into_decoder().map_err(|e| failed(e.to_string()))?;
        let (width, height) = decoder.dimensions();
        if (width as usize).saturating_mul(height as usize) > max_pixels {
            return Err(failed(format!(
                "it has {width}x{height} pixels, more than the {max_pixels} allowed"
            )));
        }
        limits
            .reserve(decoder.total_bytes())
            .map_err(|e| failed(e.to_string()))?;
        let orientation = decoder.orientation().map_err(|e| failed(e.to_string()))?;
        let mut image = DynamicImage::from_decoder(decoder).map_err(|e| failed(e.to_string()))?;
        image.apply_orientation(orientation);
        let rgb = image.into_rgb8();
        Ok(Self {
            width: rgb.width() as usize,
            height: rgb.height() as usize,
            rgb: rgb.into_raw(),
        })
    }

    /// The same picture at another size (Lanczos).
    #[must_use]
    pub fn resized(&self, width: usize, height: usize) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let buffer = image::RgbImage::from_raw(self.width as u32, self.height as u32, self.rgb.clone());
        let buffer = buffer.unwrap_or_default();
        let filter = image::imageops::FilterType::Lanczos3;
        let rgb = image::imageops::resize(&buffer, width as u32, height as u32, filter).into_raw();
        Self { width, height, rgb }
    }

    /// `[1, H, W, 3]` in `-1..=1`, what an autoencoder's encoder takes.
    pub(crate) fn to_tensor(&self) -> Tensor {
        let values = self.rgb.iter().map(|&v| f32::from(v) / 255.0 * 2.0 - 1.0).collect();
        Tensor::from_vec(values, &[1, self.height, self.width, 3])
    }

    /// Pictures from `[B, H, W, 3]` in `-1..=1`.
    pub(crate) fn from_tensor(x: &Tensor) -> Vec<Self> {
        let (height, width) = (x.dim(1), x.dim(2));
        picture_bytes(x)
            .chunks((height * width * 3).max(1))
            .map(|bytes| Self {
                width,
                height,
                rgb: bytes.to_vec(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_networks_range() {
        let rgb: Vec<u8> = (0..=255).flat_map(|v| [v, 255 - v, v / 2]).collect();
        let picture = Picture {
            width: 16,
            height: 16,
            rgb,
        };
        assert_eq!(Picture::from_tensor(&picture.to_tensor()), [picture]);
    }

    #[test]
    fn values_outside_the_range_are_clamped_and_nan_is_black() {
        let x = Tensor::from_vec(vec![-3.0, 3.0, f32::NAN], &[1, 1, 1, 3]);
        assert_eq!(Picture::from_tensor(&x)[0].rgb, [0, 255, 0]);
    }

    #[test]
    fn a_text_file_is_not_a_picture() {
        let error = Picture::decode(b"hello, this is text", "notes.png")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("notes.png is not a picture"), "{error}");
    }

    #[test]
    fn a_small_file_that_unpacks_to_gigabytes_is_refused() {
        // The header of a PNG of 100000 x 100000 pixels.
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\x86\xa0\0\x01\x86\xa0\x08\x02\0\0\0".to_vec();
        png.extend(0x2730_9c9f_u32.to_be_bytes());
        png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
        let error = Picture::decode(&png, "bomb.png").unwrap_err().to_string();
        assert!(error.starts_with("bomb.png is not a picture"), "{error}");
        assert!(error.contains("imit") || error.contains("emory"), "{error}");
    }

    #[test]
    fn a_cut_png_is_not_a_picture() {
        let picture = Picture {
            width: 64,
            height: 64,
            rgb: (0..64 * 64 * 3).map(|i| (i * 7919 % 251) as u8).collect(),
        };
        let png = crate::png_metadata::encode_png(&picture, &crate::Parameters::default()).unwrap();
        assert_eq!(Picture::decode(&png, "a.png").unwrap(), picture);
        assert!(Picture::decode(&png[..png.len() / 2], "a.png").is_err());
    }
}
