//! How a landscape's picture is laid out.

use super::canvas::Canvas;
use super::light::Light;
use super::noise::Noise;
use crate::random::Random;

/// The frame that a landscape is painted in: a camera that looks along the horizon.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub width: usize,
    pub height: usize,
    pub horizon_px: f32,
    pub focal_px: f32,
}

impl View {
    pub fn new(width: usize, height: usize, horizon: f32) -> Self {
        Self {
            width,
            height,
            horizon_px: horizon * height as f32,
            focal_px: 1.2 * width.max(height) as f32,
        }
    }

    pub fn centre_x(&self) -> f32 {
        self.width as f32 * 0.5
    }

    /// A length that looks alike in every format: 1 is the side of a square of the same area.
    pub fn unit(&self) -> f32 {
        ((self.width * self.height) as f32).sqrt()
    }

    /// Where the sun or moon stands, in pixels.
    pub fn disc(&self, light: &Light) -> Option<(f32, f32)> {
        let (x, up) = light.disc?;
        Some((x * self.width as f32, self.horizon_px * (1.0 - up * 0.92)))
    }
}

/// What every painter of a scene works with.
pub struct Painter<'a> {
    pub canvas: &'a mut Canvas,
    pub view: View,
    pub light: &'a Light,
    pub noise: &'a Noise,
    pub random: Random,
}
