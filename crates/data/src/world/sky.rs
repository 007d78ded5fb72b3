//! Skies: gradient, sun or moon with its glow, stars, northern lights, clouds.

use super::light::Weather;
use super::maths::{self, lerp, smoothstep, srgb};
use super::view::Painter;
use glam::Vec3;

/// What a sky holds beside its gradient.
#[derive(Debug, Clone, Copy, Default)]
pub struct SkyOptions {
    /// Share of the sky under clouds, 0 to 1.
    pub clouds: f32,
    pub aurora: bool,
    /// How many stars at night; 1 is usual.
    pub stars: f32,
}

impl Painter<'_> {
    /// Paints from the top to a little under the horizon; below that the horizon's colour.
    pub fn sky(&mut self, options: SkyOptions) {
        self.gradient();
        if self.light.is_night() && self.light.weather == Weather::Clear {
            self.stars(options.stars);
        }
        if options.aurora {
            self.aurora();
        }
        if let Some((x, y)) = self.view.disc(self.light) {
            self.disc(x, y);
        }
        if options.clouds > 0.0 {
            self.clouds(options.clouds);
        }
    }

    fn gradient(&mut self) {
        let (w, light) = (self.view.width, self.light);
        let disc = self.view.disc(light);
        let unit = self.view.unit();
        for y in 0..self.view.height {
            let v = ((self.view.horizon_px - y as f32) / (0.66 * unit)).max(0.0);
            let base = light
                .horizon
                .lerp(light.middle, smoothstep(0.0, 0.42, v))
                .lerp(light.zenith, smoothstep(0.22, 1.05, v));
            let row = &mut self.canvas.pixels[y * w..(y + 1) * w];
            row.fill(base);
            let Some((sx, sy)) = disc else { continue };
            let (near, far, strength) = match light.time {
                super::light::Time::Night => (0.05, 0.16, 0.20),
                super::light::Time::Day => (0.06, 0.30, 0.45),
                _ => (0.09, 0.34, 0.75),
            };
            let glow = light.disc_colour * strength;
            for (x, pixel) in row.iter_mut().enumerate() {
                let (dx, dy) = ((x as f32 - sx) / unit, (y as f32 - sy) / unit * 1.25);
                let d = (dx * dx + dy * dy).sqrt();
                let g = 0.55 * maths::exp(-d / near) + 0.40 * maths::exp(-d / far);
                *pixel += (glow - *pixel * 0.3) * g;
            }
        }
    }

    fn disc(&mut self, sx: f32, sy: f32) {
        let night = self.light.is_night();
        let radius = self.view.unit() * if night { 0.036 } else { 0.042 };
        let reach = radius as isize + 3;
        let crescent = night && self.random.chance(0.3);
        for dy in -reach..=reach {
            for dx in -reach..=reach {
                let (fx, fy) = (dx as f32, dy as f32);
                let d = (fx * fx + fy * fy).sqrt();
                let mut share = (radius - d + 0.5).clamp(0.0, 1.0);
                let mut colour = self.light.disc_colour;
                if night {
                    let shade = self.noise.fbm(fx * 0.16 + 3.0, fy * 0.16 + 8.0, 3);
                    colour *= lerp(0.62, 1.05, smoothstep(0.35, 0.6, shade));
                    if crescent {
                        let (cx, cy) = (fx - radius * 0.55, fy + radius * 0.18);
                        share *= ((cx * cx + cy * cy).sqrt() - radius + 0.5).clamp(0.0, 1.0);
                    }
                }
                self.canvas.mix(sx as isize + dx, sy as isize + dy, colour, share);
            }
        }
    }

    /// Stars of varied brightness, the brightest with a small halo.
    pub fn stars(&mut self, amount: f32) {
        let (w, h) = (
            self.view.width as f32,
            self.view.horizon_px.min(self.view.height as f32),
        );
        let count = (amount * 340.0 * w * h / (256.0 * 150.0)) as usize;
        for _ in 0..count {
            let (x, y) = (self.random.range(0.0, w), self.random.range(0.0, h));
            let brightness = self.random.unit();
            let brightness = 0.08 + 1.3 * brightness * brightness * brightness * brightness;
            let warm = self.random.unit();
            let colour = Vec3::new(lerp(0.75, 1.0, warm), 0.88, lerp(1.0, 0.78, warm)) * brightness;
            self.dot(x, y, 0.62, colour);
            if brightness > 0.9 {
                self.dot(x, y, 1.7, colour * 0.22);
            }
        }
    }

    /// Adds light in a small round spot.
    pub fn dot(&mut self, x: f32, y: f32, radius: f32, colour: Vec3) {
        let reach = radius.ceil() as isize + 1;
        let (xi, yi) = (x as isize, y as isize);
        for py in yi - reach..=yi + reach {
            for px in xi - reach..=xi + reach {
                let (dx, dy) = (px as f32 + 0.5 - x, py as f32 + 0.5 - y);
                let share = (radius + 0.5 - (dx * dx + dy * dy).sqrt()).clamp(0.0, 1.0);
                if share > 0.0
                    && px >= 0
                    && py >= 0
                    && (px as usize) < self.view.width
                    && (py as usize) < self.view.height
                {
                    self.canvas.pixels[py as usize * self.view.width + px as usize] += colour * share;
                }
            }
        }
    }

    /// Curtains of northern lights: a sharp lower edge, rays that fade upward from green to violet.
    fn aurora(&mut self) {
        let (w, h) = (self.view.width, self.view.horizon_px);
        let unit = self.view.unit();
        let green = srgb(70, 255, 150);
        let teal = srgb(40, 210, 200);
        let violet = srgb(150, 70, 220);
        for curtain in 0..3 {
            let seed = self.random.range(0.0, 200.0);
            let base = h * (0.42 + 0.16 * curtain as f32 + self.random.range(-0.06, 0.06));
            let sway = unit * self.random.range(0.05, 0.12);
            let strength = self.random.range(0.35, 0.8) * if curtain == 2 { 0.5 } else { 1.0 };
            let tall = unit * self.random.range(0.14, 0.30);
            let low = green.lerp(teal, self.random.unit() * 0.6);
            for x in 0..w {
                let u = x as f32 / unit;
                let fold = self.noise.fbm(u * 2.2 + seed, seed * 0.7, 3);
                let foot = base + (fold - 0.5) * 4.0 * sway;
                let rays = self.noise.value(u * 22.0 + fold * 9.0, seed) * 0.6 + self.noise.value(u * 60.0, seed) * 0.4;
                let power = strength
                    * smoothstep(0.25, 0.7, self.noise.value(u * 2.6 + seed, 5.0 + seed))
                    * (0.35 + 0.9 * rays);
                let first = (foot - 3.2 * tall).max(0.0) as usize;
                let last = ((foot + 12.0).max(0.0) as usize).min(self.view.height);
                for y in first..last {
                    let above = (foot - y as f32) / tall;
                    let fade = if above < 0.0 {
                        maths::exp(above * tall / 3.2)
                    } else {
                        maths::exp(-above * 1.5)
                    };
                    let colour = low.lerp(violet, smoothstep(0.25, 1.6, above));
                    self.canvas.pixels[y * w + x] += colour * (fade * power);
                }
            }
        }
    }

    /// Clouds on a plane above, lit from the sun's side, at half the picture's resolution.
    fn clouds(&mut self, amount: f32) {
        let (w, light) = (self.view.width, self.light);
        let h = (self.view.horizon_px as usize).min(self.view.height);
        let (gw, gh) = (w / 2 + 2, h / 2 + 2);
        let unit = self.view.unit();
        let overcast = light.weather != Weather::Clear;
        let (ox, oy) = (self.random.range(0.0, 200.0), self.random.range(0.0, 200.0));
        let stretch = self.random.range(0.8, 1.7);
        let scale = self.random.range(1.5, 2.4);
        let side = light.disc.map_or(0.5, |d| d.0) - 0.5;
        let cover = lerp(0.66, 0.40, amount);
        let mut grid = vec![[0.0f32; 2]; gw * gh];
        for gy in 0..gh {
            let up = (self.view.horizon_px - gy as f32 * 2.0).max(0.0) / unit;
            let far = 1.0 / (up + 0.16);
            for gx in 0..gw {
                let u = (gx as f32 * 2.0 - w as f32 * 0.5) / unit;
                let (px, py) = (u * far * scale * 0.55 + ox, far * stretch * scale * 0.5 + oy);
                let warp = self.noise.value(px * 0.7, py * 0.7) * 0.8;
                let density = self.noise.fbm(px + warp, py - warp, 5);
                let lit = self.noise.fbm(px + warp + 0.16 * side, py - warp + 0.10, 3);
                grid[gy * gw + gx] = [density, density - lit];
            }
        }
        let (bright, dark) = self.cloud_colours();
        for y in 0..h {
            let up = (self.view.horizon_px - y as f32) / unit;
            let fade = smoothstep(0.0, 0.07, up);
            let (gy, fy) = (y / 2, (y % 2) as f32 * 0.5);
            for x in 0..w {
                let (gx, fx) = (x / 2, (x % 2) as f32 * 0.5);
                let at = |i: usize| {
                    let (a, b) = (grid[gy * gw + gx][i], grid[gy * gw + gx + 1][i]);
                    let (c, d) = (grid[(gy + 1) * gw + gx][i], grid[(gy + 1) * gw + gx + 1][i]);
                    lerp(lerp(a, b, fx), lerp(c, d, fx), fy)
                };
                let density = at(0);
                let share = smoothstep(cover, cover + 0.20, density) * fade * if overcast { 0.85 } else { 0.92 };
                if share > 0.003 {
                    let thick = smoothstep(cover + 0.02, cover + 0.34, density);
                    let tone = (0.72 - 0.62 * thick + at(1) * 2.6).clamp(0.0, 1.0);
                    let pixel = &mut self.canvas.pixels[y * w + x];
                    *pixel += (dark.lerp(bright, tone) - *pixel) * share;
                }
            }
        }
    }

    fn cloud_colours(&self) -> (Vec3, Vec3) {
        let light = self.light;
        if light.weather != Weather::Clear {
            let mean = (light.middle + light.horizon) * 0.5;
            return (mean * 1.18, mean * 0.62);
        }
        match light.time {
            super::light::Time::Day => (Vec3::new(0.98, 0.98, 1.0), light.middle.lerp(Vec3::splat(0.62), 0.62)),
            super::light::Time::Night => (light.middle * 2.0 + Vec3::splat(0.015), light.middle * 0.7),
            _ => (
                light.horizon * 1.05 + light.disc_colour * 0.10,
                light.middle.lerp(light.zenith, 0.55) * 0.85,
            ),
        }
    }
}
