//! Drawing one picture as a 128 px sprite: straight-alpha RGBA, the object centred and fitted with a margin.

use crate::packages::Drawing;
use image::{RgbaImage, imageops};
use resvg::{tiny_skia, usvg};

/// Side of a sprite and of a sample, pixels.
pub const SIZE_PX: u32 = 128;
/// Room kept around the object, pixels.
pub const MARGIN_PX: u32 = 8;
/// Bytes of one sprite.
pub const SPRITE_BYTES: usize = (SIZE_PX * SIZE_PX * 4) as usize;
/// Vector drawings are drawn this many times larger and averaged down.
const SUPERSAMPLING: u32 = 2;

/// Draws `drawing` as [`SPRITE_BYTES`] of straight-alpha RGBA; `None` if it cannot be read or shows nothing.
pub fn sprite(drawing: &Drawing) -> Option<Vec<u8>> {
    match drawing {
        Drawing::Svg(text) => svg(text),
        Drawing::Bitmap(bytes) => fit(&decode(bytes)?, imageops::FilterType::CatmullRom),
        Drawing::PixelArt(bytes) => fit(&decode(bytes)?, imageops::FilterType::Nearest),
        Drawing::Photo(bytes) => photo(bytes),
    }
}

fn decode(bytes: &[u8]) -> Option<RgbaImage> {
    Some(image::load_from_memory(bytes).ok()?.to_rgba8())
}

/// Draws the document twice: small to find what is visible, then so that just this fills the sprite.
fn svg(text: &str) -> Option<Vec<u8>> {
    let tree = usvg::Tree::from_str(text, &usvg::Options::default()).ok()?;
    let (width, height) = (tree.size().width(), tree.size().height());
    let probe_px = 96u32;
    let scale = probe_px as f32 / width.max(height);
    let mut probe = tiny_skia::Pixmap::new(probe_px, probe_px)?;
    resvg::render(
        &tree,
        tiny_skia::Transform::from_scale(scale, scale),
        &mut probe.as_mut(),
    );
    let alpha = |x: u32, y: u32| probe.pixel(x, y).map_or(0, tiny_skia::PremultipliedColorU8::alpha);
    let (x0, y0, x1, y1) = visible_box(probe_px, probe_px, alpha)?;

    let large = SIZE_PX * SUPERSAMPLING;
    let inner = ((SIZE_PX - 2 * MARGIN_PX) * SUPERSAMPLING) as f32;
    let zoom = inner / (x1 - x0).max(y1 - y0) as f32;
    let centre = large as f32 / 2.0;
    let transform = tiny_skia::Transform::from_row(
        scale * zoom,
        0.0,
        0.0,
        scale * zoom,
        centre - zoom * (x0 + x1) as f32 / 2.0,
        centre - zoom * (y0 + y1) as f32 / 2.0,
    );
    let mut pixmap = tiny_skia::Pixmap::new(large, large)?;
    resvg::render(&tree, transform, &mut pixmap.as_mut());
    Some(average_down(pixmap.data(), large as usize))
}

/// Box (x0, y0, x1, y1), end exclusive, of the pixels that are more than barely visible.
fn visible_box(width: u32, height: u32, alpha: impl Fn(u32, u32) -> u8) -> Option<(u32, u32, u32, u32)> {
    let (mut x0, mut y0, mut x1, mut y1) = (width, height, 0, 0);
    for y in 0..height {
        for x in 0..width {
            if alpha(x, y) > 12 {
                (x0, y0, x1, y1) = (x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1));
            }
        }
    }
    (x1 > x0 + 2 && y1 > y0 + 2).then_some((x0, y0, x1, y1))
}

/// Averages 2x2 premultiplied pixels and divides by alpha.
fn average_down(premultiplied: &[u8], side: usize) -> Vec<u8> {
    let half = side / 2;
    let mut out = Vec::with_capacity(half * half * 4);
    for y in 0..half {
        for x in 0..half {
            let corner = (2 * y * side + 2 * x) * 4;
            let sum = |c: usize| -> u32 {
                [corner, corner + 4, corner + side * 4, corner + side * 4 + 4]
                    .into_iter()
                    .map(|i| u32::from(premultiplied[i + c]))
                    .sum()
            };
            let alpha = sum(3);
            let straight = |c| {
                (sum(c) * 255 + alpha / 2)
                    .checked_div(alpha)
                    .map_or(0, |v| v.min(255) as u8)
            };
            out.extend([straight(0), straight(1), straight(2), ((alpha + 2) / 4) as u8]);
        }
    }
    out
}

/// Fits the visible part of a bitmap into the sprite. Filtering happens on premultiplied values, so that the colour of
/// transparent pixels does not bleed in.
fn fit(bitmap: &RgbaImage, filter: imageops::FilterType) -> Option<Vec<u8>> {
    let (x0, y0, x1, y1) = visible_box(bitmap.width(), bitmap.height(), |x, y| bitmap.get_pixel(x, y)[3])?;
    let (width, height) = (x1 - x0, y1 - y0);
    let inner = (SIZE_PX - 2 * MARGIN_PX) as f32;
    let mut zoom = inner / width.max(height) as f32;
    if filter == imageops::FilterType::Nearest {
        zoom = zoom.floor().max(1.0);
    }
    let new_width = ((width as f32 * zoom).round() as u32).clamp(1, SIZE_PX);
    let new_height = ((height as f32 * zoom).round() as u32).clamp(1, SIZE_PX);
    let premultiplied = image::Rgba32FImage::from_fn(width, height, |x, y| {
        let [r, g, b, a] = bitmap.get_pixel(x0 + x, y0 + y).0.map(|v| f32::from(v) / 255.0);
        image::Rgba([r * a, g * a, b * a, a])
    });
    let small = imageops::resize(&premultiplied, new_width, new_height, filter);
    let mut out = vec![0u8; SPRITE_BYTES];
    let (left, top) = ((SIZE_PX - new_width) / 2, (SIZE_PX - new_height) / 2);
    for (x, y, pixel) in small.enumerate_pixels() {
        let [r, g, b, a] = pixel.0;
        let at = (((top + y) * SIZE_PX + left + x) * 4) as usize;
        let byte = |v: f32| (v * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
        let a = a.clamp(0.0, 1.0);
        if a > 1.0 / 512.0 {
            out[at..at + 4].copy_from_slice(&[byte(r / a), byte(g / a), byte(b / a), byte(a)]);
        }
    }
    Some(out)
}

/// The centre square of a photograph.
fn photo(bytes: &[u8]) -> Option<Vec<u8>> {
    let bitmap = decode(bytes)?;
    let side = bitmap.width().min(bitmap.height());
    let crop = imageops::crop_imm(
        &bitmap,
        (bitmap.width() - side) / 2,
        (bitmap.height() - side) / 2,
        side,
        side,
    );
    let small = imageops::resize(&crop.to_image(), SIZE_PX, SIZE_PX, imageops::FilterType::Triangle);
    Some(small.into_raw())
}
