//! Pictures as tensors, and tensors as grids of pictures.

use crate::error::{Error, Result};
use image::{ImageEncoder, RgbImage};
use prima_tensor::Tensor;

/// `[H, W]` RGB bytes to `[-1, 1]`.
pub fn to_signed(byte: u8) -> f32 {
    f32::from(byte) / 127.5 - 1.0
}

fn to_byte(value: f32) -> u8 {
    ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
}

/// `[B, H, W, 3]` in `[-1, 1]` as one picture, `columns` to a row, two pixels apart.
pub fn grid(pictures: &Tensor, columns: usize) -> RgbImage {
    const GAP: usize = 2;
    let [b, h, w, c] = [pictures.dim(0), pictures.dim(1), pictures.dim(2), pictures.dim(3)];
    assert_eq!(c, 3, "a grid wants RGB, shape is {:?}", pictures.shape());
    let rows = b.div_ceil(columns);
    let width = columns * (w + GAP) - GAP;
    let mut out = RgbImage::from_pixel(width as u32, (rows * (h + GAP) - GAP) as u32, image::Rgb([255; 3]));
    for (i, pixel) in pictures.data().chunks_exact(3).enumerate() {
        let (sample, y, x) = (i / (h * w), i / w % h, i % w);
        let (left, top) = (sample % columns * (w + GAP), sample / columns * (h + GAP));
        out.put_pixel(
            (left + x) as u32,
            (top + y) as u32,
            image::Rgb([to_byte(pixel[0]), to_byte(pixel[1]), to_byte(pixel[2])]),
        );
    }
    out
}

pub fn png_bytes(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    image::codecs::png::PngEncoder::new(&mut out)
        .write_image(
            picture,
            picture.width(),
            picture.height(),
            image::ExtendedColorType::Rgb8,
        )
        .map_err(|e| Error::Data(format!("PNG encoding: {e}")))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_land_in_their_cells() {
        let mut data = vec![-1.0; 2 * 2 * 2 * 3];
        data[12..].fill(1.0);
        data[0] = to_signed(200);
        let picture = grid(&Tensor::from_vec(data, &[2, 2, 2, 3]), 2);
        assert_eq!((picture.width(), picture.height()), (6, 2));
        assert_eq!(picture.get_pixel(0, 0).0, [200, 0, 0]);
        assert_eq!(picture.get_pixel(4, 1).0, [255; 3]);
    }
}
