//! Ground and floors in perspective: grass, sand, snow, stone, paving, asphalt, wood, tiles.

use super::camera::Camera;
use super::maths::{self, floor, lerp, smoothstep, srgb};
use super::noise::Noise;
use super::view::Painter;
use glam::Vec3;

/// What the ground is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Material {
    Grass,
    DryGrass,
    Sand,
    Snow,
    Dirt,
    Stone,
    Paving,
    Asphalt,
    Planks,
    Table,
    Tiles,
    Carpet,
    Moon,
    Roof,
    SeaBed,
}

/// A material with the hues of one picture.
#[derive(Debug, Clone, Copy)]
pub struct Surface {
    pub material: Material,
    pub base: Vec3,
    pub other: Vec3,
    /// Where in the noise this picture looks.
    pub seed: f32,
    /// Turn of boards and slabs around the vertical.
    pub turn: (f32, f32),
    /// Size of the pattern; 1 suits a thing of height 1.
    pub scale: f32,
}

impl Surface {
    pub fn new(material: Material, random: &mut crate::random::Random) -> Self {
        let pick = |random: &mut crate::random::Random, pairs: &[(Vec3, Vec3)]| pairs[random.below(pairs.len())];
        let (base, other) = match material {
            Material::Grass => pick(
                random,
                &[
                    (srgb(92, 142, 58), srgb(132, 166, 72)),
                    (srgb(76, 132, 62), srgb(116, 158, 70)),
                    (srgb(112, 150, 62), srgb(154, 172, 84)),
                ],
            ),
            Material::DryGrass => (srgb(176, 152, 84), srgb(150, 142, 74)),
            Material::Sand => pick(
                random,
                &[
                    (srgb(232, 206, 152), srgb(214, 184, 126)),
                    (srgb(240, 220, 176), srgb(222, 198, 150)),
                ],
            ),
            Material::Snow => (srgb(242, 246, 252), srgb(214, 226, 244)),
            Material::Dirt => (srgb(140, 106, 74), srgb(112, 84, 58)),
            Material::Stone | Material::Paving => pick(
                random,
                &[
                    (srgb(164, 160, 154), srgb(136, 132, 128)),
                    (srgb(176, 166, 148), srgb(150, 138, 122)),
                ],
            ),
            Material::Asphalt => (srgb(92, 94, 98), srgb(76, 78, 84)),
            Material::Planks | Material::Table => pick(
                random,
                &[
                    (srgb(172, 122, 74), srgb(146, 98, 56)),
                    (srgb(132, 88, 54), srgb(104, 66, 40)),
                    (srgb(206, 166, 114), srgb(184, 140, 90)),
                    (srgb(156, 108, 72), srgb(126, 82, 52)),
                ],
            ),
            Material::Tiles => pick(
                random,
                &[
                    (srgb(226, 224, 216), srgb(150, 164, 168)),
                    (srgb(214, 196, 172), srgb(168, 132, 104)),
                    (srgb(232, 232, 230), srgb(214, 214, 212)),
                ],
            ),
            Material::Carpet => pick(
                random,
                &[
                    (srgb(176, 168, 156), srgb(160, 152, 142)),
                    (srgb(126, 138, 156), srgb(112, 124, 142)),
                    (srgb(190, 160, 140), srgb(172, 142, 124)),
                ],
            ),
            Material::Moon => (srgb(168, 168, 170), srgb(120, 120, 126)),
            Material::Roof => pick(
                random,
                &[
                    (srgb(128, 122, 118), srgb(106, 100, 98)),
                    (srgb(156, 98, 76), srgb(126, 76, 60)),
                ],
            ),
            Material::SeaBed => (srgb(214, 200, 150), srgb(180, 168, 128)),
        };
        let angle = match material {
            Material::Planks | Material::Paving | Material::Tiles => random.range(-0.35, 0.35),
            Material::Table => std::f32::consts::FRAC_PI_2 + random.range(-0.12, 0.12),
            _ => random.range(0.0, std::f32::consts::TAU),
        };
        Self {
            material,
            base,
            other,
            seed: random.range(0.0, 200.0),
            turn: (maths::sin(angle), maths::cos(angle)),
            scale: 1.0,
        }
    }

    /// The colour in full white light at a ground point. `footprint`: width of a pixel there; what is finer fades.
    #[inline]
    pub fn at(&self, noise: &Noise, p: Vec3, footprint: f32) -> Vec3 {
        let (sin, cos) = self.turn;
        let (x, z) = (p.x / self.scale, p.z / self.scale);
        let (u, v) = (x * cos - z * sin, x * sin + z * cos);
        let footprint = footprint / self.scale;
        let seed = self.seed;
        // 1 while the frequency is resolved, 0 when several periods share a pixel.
        let seen = |frequency: f32| (1.4 - footprint * frequency * 1.6).clamp(0.0, 1.0);
        let n = |frequency: f32, offset: f32| {
            let s = seen(frequency);
            if s <= 0.0 {
                0.0
            } else {
                (noise.value(u * frequency + seed + offset, v * frequency - seed) - 0.5) * s
            }
        };
        match self.material {
            Material::Grass | Material::DryGrass => {
                let patch = n(0.6, 0.0) + n(1.7, 31.0) * 0.6;
                let blades = n(9.0, 3.0) * 0.8 + n(24.0, 7.0) * 0.9 + n(60.0, 11.0) * 0.7;
                self.base.lerp(self.other, (0.5 + patch * 1.4).clamp(0.0, 1.0)) * (1.0 + blades * 0.85)
            }
            Material::Sand | Material::SeaBed => {
                let warp = n(1.1, 0.0) * 2.2;
                let ripple = maths::sin((v * 1.0 + warp) * 26.0) * seen(8.0) * 0.5;
                let grain = n(40.0, 5.0) + n(90.0, 9.0);
                self.base
                    .lerp(self.other, (0.45 + n(0.7, 17.0) + ripple * 0.35).clamp(0.0, 1.0))
                    * (1.0 + grain * 0.14)
            }
            Material::Snow => {
                let drift = n(0.7, 0.0) + n(2.1, 13.0) * 0.6;
                let sparkle = n(70.0, 3.0).max(0.0) * 0.10;
                self.base.lerp(self.other, (0.4 + drift * 1.5).clamp(0.0, 1.0)) * (1.0 + sparkle)
            }
            Material::Dirt | Material::Stone | Material::Moon => {
                let rough = n(1.3, 0.0) + n(3.9, 13.0) * 0.7 + n(13.0, 3.0) * 0.6 + n(40.0, 6.0) * 0.5;
                let mut c = self.base.lerp(self.other, (0.5 + rough * 0.9).clamp(0.0, 1.0)) * (1.0 + rough * 0.25);
                if self.material == Material::Moon {
                    c *= self.craters(noise, u, v, seen(2.0));
                }
                c
            }
            Material::Asphalt | Material::Carpet => {
                let grain = n(30.0, 0.0) + n(75.0, 5.0);
                self.base.lerp(self.other, (0.5 + n(0.9, 9.0)).clamp(0.0, 1.0)) * (1.0 + grain * 0.22)
            }
            Material::Paving | Material::Tiles | Material::Roof => self.slabs(noise, u, v, footprint, n(14.0, 4.0)),
            Material::Planks | Material::Table => self.boards(noise, u, v, footprint),
        }
    }

    fn craters(&self, noise: &Noise, u: f32, v: f32, seen: f32) -> f32 {
        let mut light = 1.0;
        for frequency in [0.8f32, 2.3] {
            let (x, y) = (u * frequency + self.seed, v * frequency);
            let (i, j) = (floor(x), floor(y));
            let r = noise.value(i, j + 60.0);
            if r > 0.45 {
                continue;
            }
            let (dx, dy) = (x - i - 0.5, y - j - 0.5);
            let d = (dx * dx + dy * dy).sqrt() / (0.18 + 0.5 * r);
            if d < 1.25 {
                let wall = smoothstep(0.55, 0.95, d) * smoothstep(1.25, 0.98, d);
                light *= 1.0 + seen * (0.45 * wall * (dx / 0.4) - 0.22 * smoothstep(0.95, 0.4, d));
            }
        }
        light
    }

    fn slabs(&self, noise: &Noise, u: f32, v: f32, footprint: f32, rough: f32) -> Vec3 {
        let (size, joint) = match self.material {
            Material::Tiles => (0.42, 0.012),
            Material::Roof => (0.55, 0.02),
            _ => (0.5, 0.02),
        };
        let row = floor(v / size);
        let shifted = if self.material == Material::Tiles {
            u
        } else {
            u + size * 0.5 * (row - 2.0 * floor(row * 0.5))
        };
        let column = floor(shifted / size);
        let (fu, fv) = (shifted / size - column, v / size - row);
        let edge = fu.min(1.0 - fu).min(fv.min(1.0 - fv)) * size;
        let line = smoothstep(joint + footprint, joint * 0.4, edge) * (1.0 - footprint * 2.2).clamp(0.0, 1.0);
        let tone = noise.value(column * 3.0 + self.seed, row * 5.0 + 0.5);
        let check = self.material == Material::Tiles && (column + row - 2.0 * floor((column + row) * 0.5)) > 0.5;
        let body = if self.material == Material::Tiles {
            if check { self.other } else { self.base }
        } else {
            self.base.lerp(self.other, tone)
        };
        body * (0.92 + 0.16 * tone + rough * 0.3) * (1.0 - 0.45 * line)
    }

    fn boards(&self, noise: &Noise, u: f32, v: f32, footprint: f32) -> Vec3 {
        let wide = if self.material == Material::Table { 0.62 } else { 0.24 };
        let board = floor(u / wide);
        let tone = noise.value(board * 7.0 + self.seed, 3.5);
        let fu = u / wide - board;
        let edge = fu.min(1.0 - fu) * wide;
        let gap = smoothstep(0.008 + footprint * 0.8, 0.002, edge) * (1.0 - footprint * 5.0).clamp(0.0, 1.0);
        // A board ends somewhere along its length.
        let along = v / 2.6 + tone * 7.0;
        let end = (along - floor(along + 0.5)).abs() * 2.6;
        let joint = smoothstep(0.008 + footprint, 0.002, end) * (1.0 - footprint * 5.0).clamp(0.0, 1.0);
        let warp = noise.value(u * 2.0 + board * 9.0, v * 0.9) * 1.6;
        let seen = (1.2 - footprint * 40.0).clamp(0.0, 1.0);
        let grain = (noise.value(u * 26.0 + warp * 2.0 + board * 13.0, v * 1.1 + tone * 40.0) - 0.5)
            + (noise.value(u * 70.0 + warp * 3.0, v * 2.2 + tone * 20.0) - 0.5) * 0.6;
        let body = self
            .base
            .lerp(self.other, (0.15 + 0.7 * tone + grain * 0.55 * seen).clamp(0.0, 1.0));
        body * (1.0 - 0.55 * gap.max(joint * 0.8))
    }
}

impl Painter<'_> {
    /// Paints the ground plane from row `from_px` down. `blend_px`: rows over which it fades in; `edge_px`: how far its
    /// edge wanders up and down.
    pub fn ground(&mut self, surface: &Surface, camera: &Camera, from_px: f32, blend_px: f32, edge_px: f32) {
        let (w, h) = (self.view.width, self.view.height);
        let light = self.light.on_floor();
        let seed = surface.seed;
        let edges: Vec<f32> = (0..w)
            .map(|x| from_px + edge_px * (self.noise.fbm(x as f32 * 0.018 + seed, seed, 3) - 0.5) * 2.0)
            .collect();
        for y in ((from_px - edge_px).max(0.0) as usize)..h {
            let Some((_, t)) = camera.ground(camera.centre_px.0, y as f32 + 0.5) else {
                continue;
            };
            // A row covers more depth than width: blur what is finer.
            let footprint = t / camera.focal_px;
            let lost = 1.0 - maths::exp(-self.light.haze * t);
            let deep = footprint * lerp(1.0, 1.0 / (camera.eye.y / t).clamp(0.15, 1.0), 0.35);
            for (x, edge) in edges.iter().enumerate() {
                let share = ((y as f32 + 1.0 - edge) / blend_px.max(1.0)).clamp(0.0, 1.0);
                if share <= 0.0 {
                    continue;
                }
                let Some((p, _)) = camera.ground(x as f32 + 0.5, y as f32 + 0.5) else {
                    continue;
                };
                let lit = surface.at(self.noise, p, deep) * light;
                let colour = lit + (self.light.fog - lit) * lost;
                let pixel = &mut self.canvas.pixels[y * w + x];
                *pixel += (colour - *pixel) * share;
            }
        }
    }
}
