//! Files to pictures and to what they say of their making.

use crate::{Error, Parameters, Picture};
use image::{DynamicImage, ImageDecoder, ImageReader};
use std::io::Cursor;

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
}

/// The `parameters` chunk of a PNG, if it has one.
pub fn read_parameters(png: &[u8]) -> Result<Option<Parameters>, Error> {
    let failed = |message: String| Error::Png { message };
    let reader = png::Decoder::new(std::io::Cursor::new(png))
        .read_info()
        .map_err(|e| failed(e.to_string()))?;
    let info = reader.info();
    let latin1 = info
        .uncompressed_latin1_text
        .iter()
        .find(|c| c.keyword == "parameters")
        .map(|c| c.text.clone());
    let utf8 = match info.utf8_text.iter().find(|c| c.keyword == "parameters") {
        Some(chunk) => Some(chunk.get_text().map_err(|e| failed(e.to_string()))?),
        None => None,
    };
    Ok(latin1.or(utf8).map(|text| Parameters::parse(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let png = crate::encode_png(&picture, &Parameters::default()).unwrap();
        assert_eq!(Picture::decode(&png, "a.png").unwrap(), picture);
        assert!(Picture::decode(&png[..png.len() / 2], "a.png").is_err());
    }

    #[test]
    fn a_file_that_is_no_png_is_an_error() {
        assert!(read_parameters(b"GIF89a").is_err());
    }
}
