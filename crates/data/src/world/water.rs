//! Water: lakes that mirror the shore, the sea with waves and the sun's path.

use super::maths::{self, lerp, smoothstep, srgb};
use super::view::Painter;
use glam::Vec3;

/// How a stretch of water looks.
#[derive(Debug, Clone, Copy)]
pub struct Water {
    /// 0 is a mirror, 1 a choppy sea.
    pub chop: f32,
    /// Colour of deep water in full white light.
    pub deep: Vec3,
    /// First and last row.
    pub from_px: f32,
    pub to_px: f32,
    /// Height of the eye above the water, for the waves' size.
    pub eye: f32,
}

impl Water {
    pub fn lake(from_px: f32, to_px: f32) -> Self {
        Self {
            chop: 0.12,
            deep: srgb(24, 66, 84),
            from_px,
            to_px,
            eye: 0.5,
        }
    }
}

impl Painter<'_> {
    /// Mirrors the rows above `from_px` below it, broken by waves that grow towards the viewer.
    pub fn water(&mut self, water: Water) {
        let (w, h) = (self.view.width, self.view.height);
        let horizon = self.view.horizon_px;
        let first = water.from_px.max(0.0) as usize;
        let last = (water.to_px as usize).min(h);
        if first >= last {
            return;
        }
        let source = self.canvas.pixels[..(first.max(1)) * w].to_vec();
        let rows = first.max(1);
        let seed = self.random.range(0.0, 200.0);
        let floor = self.light.on_floor();
        let deep = water.deep * floor;
        let disc = self.view.disc(self.light);
        let glint = self.light.disc_colour * if self.light.is_night() { 0.5 } else { 0.75 };
        let unit = self.view.unit();
        for y in first..last {
            let k = (y - first) as f32 / (h as f32 - water.from_px).max(1.0);
            let below = (y as f32 + 0.5 - horizon).max(0.7);
            let t = self.view.focal_px * water.eye / below;
            let edge = (y as f32 + 1.0 - water.from_px).clamp(0.0, 1.0);
            let fresnel = lerp(0.94, lerp(0.72, 0.42, water.chop), smoothstep(0.0, 0.9, k));
            let amplitude = unit * (0.004 + 0.055 * water.chop) * (0.25 + 1.2 * k);
            for x in 0..w {
                let side = (x as f32 - self.view.centre_x()) / self.view.focal_px * t;
                let wave = self.noise.value(side * 5.0 + seed, t * 14.0 + seed) - 0.5;
                let swell = self.noise.fbm(side * 1.7 + seed, t * 5.0 - seed, 2) - 0.5;
                let shift = (wave * 0.7 + swell) * amplitude;
                let sx = (x as f32 + shift * 0.6).clamp(0.0, (w - 1) as f32) as usize;
                let up = (y as f32 - water.from_px) * 0.96 + shift.abs() * 1.6 * (1.0 + k) + 1.0;
                let sy = (water.from_px - up).clamp(0.0, (rows - 1) as f32);
                let (s0, f) = (sy as usize, sy - (sy as usize) as f32);
                let a = source[s0 * w + sx];
                let b = source[(s0 + 1).min(rows - 1) * w + sx];
                let mirrored = a.lerp(b, f);
                // A wave's near face shows the water, its far face the sky.
                let face = (wave + swell) * lerp(0.25, 1.1, water.chop);
                let share = (fresnel + face * (0.3 + 0.7 * k)).clamp(0.12, 0.97);
                let mut colour = deep.lerp(mirrored * 0.94, share);
                if let Some((sx, sy)) = disc {
                    let path = (x as f32 - sx) / (unit * (0.03 + 0.10 * k));
                    let low = 1.0 - smoothstep(0.2, 0.9, (water.from_px - sy) / unit);
                    let sparkle = smoothstep(0.08, 0.34, wave + swell * 0.6);
                    colour += glint * (maths::exp(-path * path) * sparkle * (0.25 + 0.75 * low));
                }
                let pixel = &mut self.canvas.pixels[y * w + x];
                *pixel += (colour - *pixel) * edge;
            }
            // Haze lies on far water.
            let lost = 1.0 - maths::exp(-self.light.haze * t * 1.2);
            if lost > 0.01 {
                for pixel in &mut self.canvas.pixels[y * w..(y + 1) * w] {
                    *pixel += (self.light.fog - *pixel) * lost;
                }
            }
        }
    }
}
