//! Space, the surface of a moon, and the bottom of the sea.

use super::ground::{Material, Surface};
use super::land::Stage;
use super::maths::{self, lerp, smoothstep, srgb};
use super::view::Painter;
use glam::Vec3;

impl Painter<'_> {
    /// Stars and a nebula over the whole picture, with a planet unless things are to float here.
    pub fn space(&mut self, planet: bool) -> bool {
        let (w, h, unit) = (self.view.width, self.view.height, self.view.unit());
        let palettes = [
            (srgb(120, 40, 150), srgb(30, 110, 190)),
            (srgb(200, 60, 90), srgb(70, 50, 160)),
            (srgb(30, 140, 150), srgb(40, 60, 170)),
            (srgb(210, 110, 60), srgb(110, 40, 120)),
        ];
        let (a, b) = palettes[self.random.below(4)];
        let strength = self.random.range(0.15, 0.9);
        let (ox, oy) = (self.random.range(0.0, 200.0), self.random.range(0.0, 200.0));
        let (gw, gh) = (w / 2 + 2, h / 2 + 2);
        let mut cloud = vec![Vec3::ZERO; gw * gh];
        for gy in 0..gh {
            for gx in 0..gw {
                let (u, v) = (gx as f32 * 2.0 / unit * 3.0 + ox, gy as f32 * 2.0 / unit * 3.0 + oy);
                let warp = self.noise.fbm(u * 0.8, v * 0.8, 3);
                let n = self.noise.fbm(u + warp * 1.6, v - warp * 1.6, 5);
                let body = smoothstep(0.42, 0.85, n);
                let core = smoothstep(0.6, 0.85, n);
                cloud[gy * gw + gx] = (a.lerp(b, smoothstep(0.35, 0.65, warp)) * body * 0.8
                    + Vec3::new(1.0, 0.85, 0.8) * core * 0.25)
                    * strength;
            }
        }
        let deep = srgb(6, 8, 22);
        for y in 0..h {
            for x in 0..w {
                let at = (y / 2) * gw + x / 2;
                let (fx, fy) = ((x % 2) as f32 * 0.5, (y % 2) as f32 * 0.5);
                let top = cloud[at].lerp(cloud[at + 1], fx);
                let bottom = cloud[at + gw].lerp(cloud[at + gw + 1], fx);
                self.canvas.pixels[y * w + x] = deep + top.lerp(bottom, fy);
            }
        }
        let horizon = self.view.horizon_px;
        self.view.horizon_px = h as f32;
        self.stars(1.1);
        self.view.horizon_px = horizon;
        if planet {
            let radius = unit * self.random.range(0.16, 0.34);
            let (x, y) = (
                w as f32 * self.random.range(0.28, 0.72),
                h as f32 * self.random.range(0.32, 0.68),
            );
            self.planet(x, y, radius);
            if self.random.chance(0.4) {
                let (mx, my) = (
                    w as f32 * self.random.range(0.08, 0.92),
                    h as f32 * self.random.range(0.08, 0.3),
                );
                let radius = unit * self.random.range(0.03, 0.06);
                self.ball(mx, my, radius, 3);
            }
        }
        planet
    }

    fn planet(&mut self, x: f32, y: f32, radius: f32) {
        let kind = self.random.below(3);
        let ring = kind != 1 && self.random.chance(0.4);
        let tilt = self.random.range(0.18, 0.4);
        let lean = self.random.range(-0.5, 0.5);
        if ring {
            self.ring(x, y, radius, tilt, lean, false);
        }
        self.ball(x, y, radius, kind);
        if ring {
            self.ring(x, y, radius, tilt, lean, true);
        }
    }

    /// A lit ball: 0 banded gas, 1 seas and land under clouds, 2 rust and rock, 3 grey moon.
    fn ball(&mut self, x: f32, y: f32, radius: f32, kind: usize) {
        let side = if self.light.direction.x >= 0.0 { 1.0 } else { -1.0 };
        let sun = Vec3::new(0.72 * side, 0.42, 0.55).normalize_or(Vec3::Y);
        let seed = self.random.range(0.0, 200.0);
        let bands = [
            (srgb(222, 190, 150), srgb(166, 112, 80)),
            (srgb(130, 170, 220), srgb(70, 96, 170)),
            (srgb(206, 170, 210), srgb(120, 84, 150)),
        ][self.random.below(3)];
        let reach = radius as isize + 8;
        let glow = if kind == 1 { srgb(110, 170, 255) } else { bands.0 };
        for dy in -reach..=reach {
            for dx in -reach..=reach {
                let (fx, fy) = (dx as f32 / radius, -dy as f32 / radius);
                let d2 = fx * fx + fy * fy;
                let d = d2.sqrt();
                let cover = ((1.0 - d) * radius + 0.5).clamp(0.0, 1.0);
                let at = (x as isize + dx, y as isize + dy);
                if kind != 3 && d > 0.97 && d < 1.0 + 7.0 / radius {
                    let facing = ((fx * sun.x + fy * sun.y) / d.max(0.1)).max(0.0);
                    let halo = maths::exp(-(d - 1.0).max(0.0) * radius / 2.4) * 0.45 * facing;
                    self.canvas.mix(at.0, at.1, glow, halo);
                }
                if cover <= 0.0 {
                    continue;
                }
                let fz = (1.0 - d2).max(0.0).sqrt();
                let n = Vec3::new(fx, fy, fz);
                let (u, v) = (fx * 1.6 + seed, fy * 1.6 + fz * 0.9);
                let body = match kind {
                    0 => {
                        let warp = self.noise.fbm(u * 1.5, v * 3.0, 3) * 0.5;
                        let t = self.noise.value(seed, (fy + warp * 0.22) * 7.0 + 50.0);
                        bands.0.lerp(bands.1, smoothstep(0.25, 0.75, t))
                    }
                    1 => {
                        let land = self.noise.fbm(u * 1.4, v * 1.4, 5);
                        let ground = srgb(28, 84, 160).lerp(srgb(86, 130, 66), smoothstep(0.5, 0.54, land));
                        let ground = ground.lerp(srgb(190, 170, 120), smoothstep(0.6, 0.7, land));
                        let ice = smoothstep(0.72, 0.86, fy.abs() + (land - 0.5) * 0.3);
                        let white = smoothstep(0.52, 0.7, self.noise.fbm(u * 1.8 + 40.0, v * 3.2, 4));
                        ground.lerp(Vec3::splat(0.92), (white * 0.85).max(ice))
                    }
                    2 => srgb(190, 100, 62).lerp(srgb(120, 66, 50), self.noise.fbm(u * 2.4, v * 2.4, 5)),
                    _ => srgb(190, 190, 188).lerp(
                        srgb(110, 110, 114),
                        smoothstep(0.35, 0.65, self.noise.fbm(u * 3.0, v * 3.0, 4)),
                    ),
                };
                let lit = smoothstep(-0.08, 0.75, n.dot(sun)) * 1.1;
                let rim = if kind == 3 {
                    0.0
                } else {
                    (1.0 - fz) * (1.0 - fz) * 0.35 * smoothstep(0.0, 0.6, n.dot(sun))
                };
                self.canvas.mix(at.0, at.1, body * (lit + 0.015) + glow * rim, cover);
            }
        }
    }

    fn ring(&mut self, x: f32, y: f32, radius: f32, tilt: f32, lean: f32, front: bool) {
        let reach = (radius * 2.3) as isize;
        let (s, c) = (maths::sin(lean), maths::cos(lean));
        let colour = srgb(214, 196, 170);
        let seed = radius;
        for dy in -reach..=reach {
            for dx in -reach..=reach {
                let (fx, fy) = (dx as f32 / radius, dy as f32 / radius);
                let (rx, ry) = (fx * c + fy * s, -fx * s + fy * c);
                if (ry > 0.0) != front {
                    continue;
                }
                let d = (rx * rx + (ry / tilt) * (ry / tilt)).sqrt();
                let share = smoothstep(1.35, 1.42, d) * smoothstep(2.15, 2.05, d);
                if share > 0.0 {
                    let line = 0.45 + 0.55 * self.noise.value(d * 22.0, seed);
                    self.canvas.mix(
                        x as isize + dx,
                        y as isize + dy,
                        colour * (0.5 + 0.4 * line),
                        share * line * 0.85,
                    );
                }
            }
        }
    }

    /// Grey dust and craters under black sky, a planet over the horizon.
    pub fn moon_surface(&mut self, stage: &Stage) {
        self.space(false);
        let unit = self.view.unit();
        let x = self.view.width as f32 * self.random.range(0.15, 0.85);
        let radius = unit * self.random.range(0.07, 0.13);
        let y = self.view.horizon_px * self.random.range(0.3, 0.55);
        self.ball(x, y, radius, 1);
        let surface = Surface::new(Material::Moon, &mut self.random);
        let edge = self.view.horizon_px + 2.0;
        self.ground(&surface, &stage.camera, edge, 1.0, 3.0);
    }

    /// Blue water, rays from above, a sandy bed with weeds.
    pub fn under_water(&mut self, stage: &Stage) {
        let (w, h, unit) = (self.view.width, self.view.height, self.view.unit());
        let warm = self.random.unit();
        let top = srgb(96, 206, 226).lerp(srgb(120, 220, 200), warm);
        let middle = srgb(24, 122, 176).lerp(srgb(24, 130, 150), warm);
        let deep = srgb(8, 52, 104).lerp(srgb(8, 66, 88), warm);
        let seed = self.random.range(0.0, 200.0);
        let source = self.random.range(0.25, 0.75) * w as f32;
        let surface = Surface::new(Material::SeaBed, &mut self.random);
        let bed = self.view.horizon_px + unit * 0.10;
        for y in 0..h {
            let v = y as f32 / h as f32;
            let base = top
                .lerp(middle, smoothstep(0.0, 0.42, v))
                .lerp(deep, smoothstep(0.3, 0.95, v));
            for x in 0..w {
                let (dx, dy) = ((x as f32 - source) / unit, y as f32 / unit + 0.28);
                let beam =
                    self.noise.value(dx / dy * 7.0 + seed, seed) * 0.65 + self.noise.value(dx / dy * 17.0, seed) * 0.35;
                let ray = smoothstep(0.52, 0.82, beam) * smoothstep(1.15, 0.1, dy) * 0.34;
                let mut c = base + top * ray;
                let edge = bed + unit * 0.05 * (self.noise.fbm(x as f32 * 0.012 + seed, 4.0, 3) - 0.5) * 2.0;
                if y as f32 > edge
                    && let Some((p, t)) = stage.camera.ground(x as f32 + 0.5, y as f32 + 0.5)
                {
                    let web = self.noise.value(p.x * 3.4 + seed, p.z * 3.4)
                        - self.noise.value(p.x * 3.1 + 9.0, p.z * 3.1 + seed);
                    let caustic = smoothstep(0.10, 0.0, web.abs()) * 0.45;
                    let sand = surface.at(self.noise, p, t / self.view.focal_px)
                        * Vec3::new(0.42, 0.78, 0.82)
                        * (0.62 + caustic);
                    let near = maths::exp(-t * 0.16);
                    c = c.lerp(sand, near * smoothstep(0.0, 10.0, y as f32 - edge));
                }
                self.canvas.pixels[y * w + x] = c;
            }
        }
        let weeds = 5 + self.random.below(8);
        for _ in 0..weeds {
            let side = self.random.chance(0.5);
            let u = self.random.unit() * 0.30;
            let x = if side { u } else { 1.0 - u } * w as f32;
            let foot = lerp(bed + unit * 0.08, h as f32 * 1.02, self.random.unit());
            let tall = unit * self.random.range(0.12, 0.34);
            self.weed(x, foot, tall);
        }
        for _ in 0..10 + self.random.below(25) {
            let (x, y) = (self.random.range(0.0, w as f32), self.random.range(0.0, h as f32 * 0.8));
            let r = unit * self.random.range(0.003, 0.010);
            self.dot(x, y, r, Vec3::new(0.12, 0.22, 0.24));
            self.dot(x - r * 0.35, y - r * 0.35, r * 0.3, Vec3::splat(0.6));
        }
    }

    fn weed(&mut self, x: f32, foot: f32, tall: f32) {
        let colour = [
            srgb(38, 122, 70),
            srgb(80, 134, 52),
            srgb(150, 70, 70),
            srgb(24, 96, 84),
        ][self.random.below(4)];
        let phase = self.random.range(0.0, std::f32::consts::TAU);
        let blades = 3 + self.random.below(3);
        for blade in 0..blades {
            let lean = (blade as f32 - blades as f32 * 0.5) * 0.12;
            let tall = tall * self.random.range(0.6, 1.0);
            for step in 0..tall as usize {
                let t = step as f32 / tall;
                let cx = x + lean * tall * t + maths::sin(phase + t * 5.0 + blade as f32) * tall * 0.08 * t;
                let half = tall * 0.035 * (1.0 - t) + 0.5;
                let y = foot - step as f32;
                if y >= 0.0 && (y as usize) < self.view.height {
                    self.span(
                        y as usize,
                        cx - half,
                        cx + half,
                        colour * lerp(0.35, 0.95, t) * Vec3::new(0.7, 0.95, 0.95),
                    );
                }
            }
        }
    }
}
