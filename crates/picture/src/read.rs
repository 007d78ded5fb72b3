//! Files to pictures and to what they say of their making. Whatever a stranger's file claims is checked against a bound
//! before it is unpacked.

use crate::{Error, Format, Gray, Layer, Parameters, Picture};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use std::borrow::Cow;
use std::io::Cursor;

/// The largest file an initial picture may unpack to, in bytes.
const MAX_DECODED_BYTES: u64 = 1 << 30;
/// The longest side of a picture that is read, in pixels.
pub const MAX_SIDE_PX: usize = 1 << 14;
/// The longest text about a picture that is unpacked, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

impl Picture {
    /// Decodes a PNG, JPEG or WebP file, turned upright as its EXIF orientation says; transparency
    /// is dropped. `name` is what an error calls the file.
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self, Error> {
        Self::decode_at_most(bytes, name, usize::MAX)
    }

    /// As [`decode`](Self::decode), but a picture of more than `max_pixels`, or with a side of more than
    /// [`MAX_SIDE_PX`], is refused before its pixels are unpacked: a bound on memory and time.
    pub fn decode_at_most(bytes: &[u8], name: &str, max_pixels: usize) -> Result<Self, Error> {
        Ok(upright(bytes, name, max_pixels)?.into_rgb8().into())
    }
}

impl From<image::RgbImage> for Picture {
    fn from(rgb: image::RgbImage) -> Self {
        Self {
            width: rgb.width() as usize,
            height: rgb.height() as usize,
            rgb: rgb.into_raw(),
        }
    }
}

impl Layer {
    /// As [`Picture::decode_at_most`], with the transparency that the file has.
    pub fn decode_at_most(bytes: &[u8], name: &str, max_pixels: usize) -> Result<Self, Error> {
        let image = upright(bytes, name, max_pixels)?;
        if !image.color().has_alpha() {
            return Ok(Picture::from(image.into_rgb8()).into());
        }
        let image = image.into_rgba8();
        let (width, height) = (image.width() as usize, image.height() as usize);
        let values: Vec<u8> = image.pixels().map(|pixel| pixel.0[3]).collect();
        let rgb = image
            .pixels()
            .flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]])
            .collect();
        let is_opaque = values.iter().all(|&value| value == 255);
        Ok(Self {
            picture: Picture { width, height, rgb },
            alpha: (!is_opaque).then_some(Gray { width, height, values }),
        })
    }
}

/// A file's picture, turned as its EXIF orientation says.
fn upright(bytes: &[u8], name: &str, max_pixels: usize) -> Result<DynamicImage, Error> {
    let failed = |e: image::ImageError| not_a_picture(name, e.to_string());
    let bytes = without_notes(bytes, name)?;
    let mut decoder = open(&bytes, name, max_pixels)?;
    let orientation = decoder.orientation().map_err(failed)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// What a file's header announces, before its pixels are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// As the file says, before EXIF turns the picture.
    pub width: usize,
    pub height: usize,
    /// Memory that [`Picture::decode_at_most`] needs for it at most, in bytes, the file's own not counted.
    pub decode_bytes: usize,
}

impl Header {
    /// Reads the header alone. The same bounds hold and the same files are refused as in [`Picture::decode_at_most`].
    pub fn read(bytes: &[u8], name: &str, max_pixels: usize) -> Result<Self, Error> {
        let bytes = without_notes(bytes, name)?;
        let decoder = open(&bytes, name, max_pixels)?;
        let (width, height) = decoder.dimensions();
        let (width, height) = (width as usize, height as usize);
        let copied = if matches!(bytes, Cow::Owned(_)) { bytes.len() } else { 0 };
        // The decoder's own planes and its output, the picture turned upright or made RGB.
        let decode_bytes = 2 * decoder.total_bytes() as usize + 3 * width * height + copied;
        Ok(Self {
            width,
            height,
            decode_bytes,
        })
    }
}

fn not_a_picture(name: &str, reason: String) -> Error {
    Error::NotAPicture {
        name: name.to_owned(),
        reason,
    }
}

/// The file as far as its pixels go.
fn without_notes<'a>(bytes: &'a [u8], name: &str) -> Result<Cow<'a, [u8]>, Error> {
    match format_of(bytes) {
        Some(ImageFormat::Png) => Ok(without_compressed_notes(bytes)),
        Some(ImageFormat::WebP) if !chunks_fit(bytes) => Err(not_a_picture(name, CUT_SHORT.to_owned())),
        Some(_) => Ok(Cow::Borrowed(bytes)),
        None => Err(not_a_picture(
            name,
            "its first bytes are those of no such file".to_owned(),
        )),
    }
}

/// A decoder that has read the header, if what that announces is within the bounds.
fn open<'a>(bytes: &'a [u8], name: &str, max_pixels: usize) -> Result<impl ImageDecoder + 'a, Error> {
    let failed = |e: image::ImageError| not_a_picture(name, e.to_string());
    let mut reader = ImageReader::new(Cursor::new(bytes));
    if let Some(format) = format_of(bytes) {
        reader.set_format(format);
    }
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits.clone());
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if (width as usize).saturating_mul(height as usize) > max_pixels {
        let message = format!("it has {width}x{height} pixels, more than the {max_pixels} allowed");
        return Err(not_a_picture(name, message));
    }
    if width.max(height) as usize > MAX_SIDE_PX {
        let message = format!("it has {width}x{height} pixels, and the longest side allowed is {MAX_SIDE_PX}");
        return Err(not_a_picture(name, message));
    }
    limits.reserve(decoder.total_bytes()).map_err(failed)?;
    Ok(decoder)
}

impl Format {
    /// By how a file begins.
    pub fn of_file(bytes: &[u8]) -> Option<Self> {
        match format_of(bytes)? {
            ImageFormat::Png => Some(Self::Png),
            ImageFormat::Jpeg => Some(Self::Jpeg),
            ImageFormat::WebP => Some(Self::Webp),
            _ => None,
        }
    }
}

/// Of the formats that are read, the one that a file's first bytes are of.
fn format_of(bytes: &[u8]) -> Option<ImageFormat> {
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
    image::guess_format(bytes).ok().filter(|format| known.contains(format))
}

const CUT_SHORT: &str = "a part of it ends beyond its end";

/// Whether the parts of a WebP file end within it: a decoder makes room for as many bytes as one announces, up to 4 GB.
fn chunks_fit(webp: &[u8]) -> bool {
    const HEADER: usize = 12;
    let mut at = HEADER;
    while let Some(length) = webp.get(at + 4..at + 8).and_then(|b| b.try_into().ok()) {
        let length = u32::from_le_bytes(length) as usize;
        if length > webp.len() - at - 8 {
            return false;
        }
        // Each is filled up to an even length.
        at += 8 + length + length % 2;
    }
    true
}

/// A PNG without the chunks that unpack to something other than pixels (a colour profile, texts): a decoder would unpack
/// them on opening the file, a thousand times their size, and nothing here asks for them. A file that is cut short is
/// passed on as far as it goes, for the decoder to say so.
fn without_compressed_notes(png: &[u8]) -> Cow<'_, [u8]> {
    const SIGNATURE: usize = 8;
    let mut out = Vec::new();
    let mut kept_to = 0;
    let mut at = SIGNATURE.min(png.len());
    while let Some((length, kind)) = png.get(at..at + 8).and_then(|head| head.split_at_checked(4)) {
        let length = length.iter().fold(0usize, |n, byte| n << 8 | usize::from(*byte));
        // Length, type and checksum.
        let Some(end) = at.checked_add(length + 12).filter(|end| *end <= png.len()) else {
            break;
        };
        if matches!(kind, b"iCCP" | b"zTXt" | b"iTXt") {
            out.extend_from_slice(&png[kept_to..at]);
            kept_to = end;
        }
        at = end;
    }
    if kept_to == 0 {
        return Cow::Borrowed(png);
    }
    out.extend_from_slice(&png[kept_to..]);
    Cow::Owned(out)
}

/// What a PNG, JPEG or WebP file says of its making, if it says anything: the `parameters` chunk of a PNG, the EXIF
/// `UserComment` of the others. Text of more than [`MAX_TEXT_BYTES`] is refused unread.
pub fn read_parameters(bytes: &[u8]) -> Result<Option<Parameters>, Error> {
    let failed = |message: String| Error::Metadata { message };
    let Some(format) = format_of(bytes) else {
        return Err(failed("the file is not a PNG, JPEG or WebP".to_owned()));
    };
    if format == ImageFormat::WebP && !chunks_fit(bytes) {
        return Err(failed(CUT_SHORT.to_owned()));
    }
    let text = if format == ImageFormat::Png {
        png_text(bytes)?
    } else {
        let reader = ImageReader::with_format(Cursor::new(bytes), format);
        let mut decoder = reader.into_decoder().map_err(|e| failed(e.to_string()))?;
        let exif = decoder.exif_metadata().map_err(|e| failed(e.to_string()))?;
        exif.and_then(user_comment)
    };
    Ok(text.map(|text| Parameters::parse(&text)))
}

fn png_text(png: &[u8]) -> Result<Option<String>, Error> {
    let failed = |error: png::DecodingError| Error::Metadata {
        message: error.to_string(),
    };
    let mut decoder = png::Decoder::new(Cursor::new(png));
    decoder.set_ignore_iccp_chunk(true);
    let reader = decoder.read_info().map_err(failed)?;
    let info = reader.info();
    let is_it = |keyword: &str| keyword == "parameters";
    if let Some(chunk) = info.uncompressed_latin1_text.iter().find(|c| is_it(&c.keyword)) {
        return Ok(Some(chunk.text.clone()));
    }
    if let Some(chunk) = info.compressed_latin1_text.iter().find(|c| is_it(&c.keyword)) {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(MAX_TEXT_BYTES).map_err(failed)?;
        return chunk.get_text().map(Some).map_err(failed);
    }
    let Some(chunk) = info.utf8_text.iter().find(|c| is_it(&c.keyword)) else {
        return Ok(None);
    };
    let mut chunk = chunk.clone();
    chunk.decompress_text_with_limit(MAX_TEXT_BYTES).map_err(failed)?;
    chunk.get_text().map(Some).map_err(failed)
}

/// The text of an EXIF block's `UserComment`, in the encoding that its first eight bytes name.
fn user_comment(exif: Vec<u8>) -> Option<String> {
    let exif = exif::Reader::new().read_raw(exif).ok()?;
    let field = exif.get_field(exif::Tag::UserComment, exif::In::PRIMARY)?;
    let exif::Value::Undefined(bytes, _) = &field.value else {
        return None;
    };
    let (code, text) = bytes.split_at_checked(8)?;
    let text = &text[..text.len().min(MAX_TEXT_BYTES)];
    Some(match code {
        b"UNICODE\0" => utf16(text),
        _ => String::from_utf8_lossy(text).trim_end_matches('\0').to_owned(),
    })
}

/// The web UI writes big-endian text whatever the block's byte order is, others the block's: the reading with more ASCII
/// letters is the right one.
fn utf16(bytes: &[u8]) -> String {
    let (units, _) = bytes.as_chunks::<2>();
    let read = |unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = units.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    let (big, little) = (read(u16::from_be_bytes), read(u16::from_le_bytes));
    let ascii = |text: &str| text.chars().filter(char::is_ascii).count();
    if ascii(&little) > ascii(&big) { little } else { big }
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
        assert!(error.contains("longest side"), "{error}");
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

    /// A PNG of one chunk after another, with right checksums.
    fn png(width: u32, height: u32, notes: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
        let picture = Picture {
            width: 2,
            height: 2,
            rgb: vec![9; 12],
        };
        let plain = crate::encode(&picture, crate::Format::Png, 90, None).unwrap();
        let mut out = plain[..8].to_vec();
        let mut header = Vec::from(width.to_be_bytes());
        header.extend(height.to_be_bytes());
        header.extend([8, 2, 0, 0, 0]);
        for (kind, data) in [(b"IHDR", header)].iter().chain(notes) {
            out.extend((data.len() as u32).to_be_bytes());
            let start = out.len();
            out.extend(*kind);
            out.extend(data);
            let mut crc = flate2::Crc::new();
            crc.update(&out[start..]);
            out.extend(crc.sum().to_be_bytes());
        }
        out.extend_from_slice(&plain[33..]);
        out
    }

    fn deflated(bytes: usize) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b'a'; bytes]).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn text_that_unpacks_without_end_is_refused_and_does_not_hinder_the_picture() {
        let packed = deflated(200 << 20);
        let mut itxt = b"parameters\0\x01\0\0\0".to_vec();
        itxt.extend(&packed);
        let mut ztxt = b"parameters\0\0".to_vec();
        ztxt.extend(&packed);
        for (kind, data) in [(b"iTXt", itxt), (b"zTXt", ztxt)] {
            let file = png(2, 2, &[(kind, data)]);
            let error = read_parameters(&file).unwrap_err().to_string();
            assert!(
                error.starts_with("what the file says of its making cannot be read"),
                "{error}"
            );
            assert_eq!(Picture::decode(&file, "a.png").unwrap().rgb, [9; 12]);
        }
    }

    #[test]
    fn short_packed_text_is_read() {
        let mut itxt = b"parameters\0\x01\0\0\0".to_vec();
        itxt.extend(deflated(5));
        let parameters = read_parameters(&png(2, 2, &[(b"iTXt", itxt)])).unwrap().unwrap();
        assert_eq!(parameters.prompt, "aaaaa");
    }

    #[test]
    fn a_colour_profile_is_not_unpacked() {
        let mut iccp = b"icc\0\0".to_vec();
        iccp.extend(deflated(200 << 20));
        let file = png(2, 2, &[(b"iCCP", iccp)]);
        assert_eq!(without_compressed_notes(&file).len(), png(2, 2, &[]).len());
        assert_eq!(Picture::decode(&file, "a.png").unwrap().rgb, [9; 12]);
        assert!(read_parameters(&file).unwrap().is_none());
    }

    #[test]
    fn the_header_tells_size_and_memory_without_the_pixels() {
        // The pixels of this file are those of a far smaller picture: nothing looks at them yet.
        let header = Header::read(&png(4000, 3000, &[]), "a.png", 1 << 24).unwrap();
        assert_eq!((header.width, header.height), (4000, 3000));
        assert_eq!(header.decode_bytes, 3 * 3 * 4000 * 3000);
        let mut iccp = b"icc\0\0".to_vec();
        iccp.extend(deflated(1 << 20));
        let packed = Header::read(&png(4000, 3000, &[(b"iCCP", iccp)]), "a.png", 1 << 24).unwrap();
        assert!(packed.decode_bytes - header.decode_bytes < 1000);
    }

    #[test]
    fn sides_are_bounded_as_well_as_the_area() {
        for (width, height) in [(1 << 24, 1), (1, 1 << 24), (1 << 23, 2), (1 << 15, 16)] {
            let error = Picture::decode_at_most(&png(width, height, &[]), "long.png", 1 << 24).unwrap_err();
            assert!(error.to_string().contains("longest side allowed is 16384"), "{error}");
        }
    }

    #[test]
    fn only_the_formats_that_are_promised_are_read() {
        let frame = Picture {
            width: 2,
            height: 2,
            rgb: vec![9; 12],
        };
        let frames = [frame].map(Ok::<_, Error>).into_iter();
        let gif = crate::encode_gif(frames, std::time::Duration::from_millis(50)).unwrap();
        assert!(Picture::decode(&gif, "a.gif").is_err());
    }

    #[test]
    fn comments_in_either_byte_order_are_text() {
        let text = "a cat \u{732b}, Steps: 1";
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!([utf16(&big), utf16(&little)], [text, text]);
    }

    #[test]
    fn a_webp_part_longer_than_its_file_is_refused_before_room_is_made_for_it() {
        for length in [100_u32, 0x7fff_ffff, u32::MAX] {
            let mut file = b"RIFF\x30\0\0\0WEBPVP8X\x0a\0\0\0\x08\0\0\0\0\0\0\0\0\0EXIF".to_vec();
            file.extend(length.to_le_bytes());
            file.extend([0; 10]);
            assert!(Picture::decode(&file, "a file").is_err());
            assert!(Header::read(&file, "a file", 100).is_err());
            assert!(read_parameters(&file).is_err());
        }
    }
}
