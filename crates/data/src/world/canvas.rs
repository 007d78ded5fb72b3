//! A picture in linear light, and its way to sRGB bytes.

use super::maths;
use glam::Vec3;
use std::sync::OnceLock;

/// [height, width] linear colours; 1 is white.
#[derive(Debug, Clone)]
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<Vec3>,
}

const STEPS: usize = 4096;

/// sRGB bytes of linear values, evenly spaced in the square root, where the eye sees even steps.
fn bytes() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        (0..=STEPS)
            .map(|i| {
                let root = i as f32 / STEPS as f32;
                (maths::encode(root * root) * 255.0 + 0.5) as u8
            })
            .collect()
    })
}

/// Rolls off what is brighter than 0.8 so that lights keep their hue; 1.8 and more is white.
#[inline]
fn shoulder(v: f32) -> f32 {
    if v <= 0.8 {
        v.max(0.0)
    } else {
        let t = ((v - 0.8) / 1.0).min(1.0);
        0.8 + 0.2 * (t * (2.0 - t))
    }
}

impl Canvas {
    pub fn new(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            pixels: vec![Vec3::ZERO; width * height],
        }
    }

    /// Mixes a colour into a pixel; outside the picture nothing happens.
    #[inline]
    pub fn mix(&mut self, x: isize, y: isize, colour: Vec3, share: f32) {
        if x >= 0 && y >= 0 && (x as usize) < self.width && (y as usize) < self.height {
            let pixel = &mut self.pixels[y as usize * self.width + x as usize];
            *pixel += (colour - *pixel) * share;
        }
    }

    /// [height, width, 3] sRGB.
    pub fn to_srgb(&self) -> Vec<u8> {
        let table = bytes();
        let mut rgb = Vec::with_capacity(self.pixels.len() * 3);
        for pixel in &self.pixels {
            for v in pixel.to_array() {
                rgb.push(table[(shoulder(v).min(1.0).sqrt() * STEPS as f32 + 0.5) as usize]);
            }
        }
        rgb
    }
}
