//! Plants drawn straight into the picture: conifers, round trees, flowers, tufts of grass, reeds.

use super::maths::{lerp, smoothstep, srgb};
use super::view::Painter;
use glam::Vec3;

impl Painter<'_> {
    /// A conifer: layered boughs, the sun's side lighter. `base` is its foot, `tall` its height, pixels.
    pub fn conifer(&mut self, x: f32, base: f32, tall: f32, colour: Vec3, fog: f32) {
        let light = self.light;
        let side = if light.direction.x >= 0.0 { 1.0 } else { -1.0 };
        let bright = light.on(Vec3::new(0.7 * side, 0.5, 0.5));
        let dark = light.on(Vec3::new(-0.7 * side, 0.35, 0.5)) * 0.6;
        let seed = self.random.range(0.0, 200.0);
        let layers = (tall / 7.0).clamp(4.0, 11.0);
        let lean = self.random.range(-0.02, 0.02);
        let wide = tall * self.random.range(0.17, 0.23);
        let snow = light.weather == super::light::Weather::Snow;
        let first = (base - tall).max(0.0) as usize;
        let last = (base.max(0.0) as usize).min(self.view.height);
        for row in first..last {
            let up = (base - row as f32 - 0.5) / tall;
            if up < 0.09 {
                let half = tall * 0.014 + 0.4;
                let trunk = srgb(84, 62, 46) * dark * 1.4;
                self.span(row, x - half, x + half, trunk + (light.fog - trunk) * fog);
                continue;
            }
            let down = 1.0 - (up - 0.09) / 0.91;
            let layer = down * layers;
            let within = layer - layer as usize as f32;
            let half = wide * down * (0.52 + 0.62 * within) + 0.3;
            let ragged = (self.noise.value(row as f32 * 0.9 + seed, seed) - 0.5) * half * 0.35;
            let (l, r) = (
                x - half + ragged + lean * tall * up,
                x + half + ragged + lean * tall * up,
            );
            let shade = lerp(0.62, 1.12, 1.0 - within);
            let from = l.max(0.0) as usize;
            let to = (r.ceil().max(0.0) as usize).min(self.view.width);
            for px in from..to {
                let cover = ((r - px as f32).min(1.0))
                    .min((px as f32 + 1.0 - l).min(1.0))
                    .clamp(0.0, 1.0);
                let across = ((px as f32 + 0.5 - x) / half.max(0.5)) * side;
                let needle = self.noise.value(px as f32 * 0.8 + seed, row as f32 * 0.8) - 0.5;
                let sunny = smoothstep(-0.6, 0.9, across + needle * 0.9);
                let mut body = colour * dark.lerp(bright, sunny) * shade * (1.0 + needle * 0.45);
                if snow {
                    let cap = smoothstep(0.55, 0.1, within) * smoothstep(-0.2, 0.3, needle + 0.15);
                    body = body.lerp(srgb(240, 245, 252) * bright, cap * 0.8);
                }
                self.canvas
                    .mix(px as isize, row as isize, body + (light.fog - body) * fog, cover);
            }
        }
    }

    /// A horizontal line with soft ends.
    pub fn span(&mut self, row: usize, from: f32, to: f32, colour: Vec3) {
        let first = from.max(0.0) as usize;
        let last = (to.ceil().max(0.0) as usize).min(self.view.width);
        for px in first..last {
            let cover = (to - px as f32).min(1.0).min(px as f32 + 1.0 - from).clamp(0.0, 1.0);
            self.canvas.mix(px as isize, row as isize, colour, cover);
        }
    }

    /// A round-headed tree: a trunk and lit clumps of leaves.
    pub fn round_tree(&mut self, x: f32, base: f32, tall: f32, colour: Vec3, fog: f32) {
        let light = self.light;
        let trunk = srgb(96, 72, 54) * light.on(Vec3::new(0.0, 0.3, 0.9));
        let trunk = trunk + (light.fog - trunk) * fog;
        for row in ((base - tall * 0.5).max(0.0) as usize)..((base.max(0.0) as usize).min(self.view.height)) {
            self.span(row, x - tall * 0.03 - 0.3, x + tall * 0.03 + 0.3, trunk);
        }
        let seed = self.random.range(0.0, 200.0);
        let side = if light.direction.x >= 0.0 { 1.0 } else { -1.0 };
        let clumps = 5 + self.random.below(3);
        for k in 0..clumps {
            let angle = k as f32 / clumps as f32 * std::f32::consts::TAU + seed;
            let (s, c) = (super::maths::sin(angle), super::maths::cos(angle));
            let cx = x + c * tall * 0.20;
            let cy = base - tall * 0.64 + s * tall * 0.17;
            let radius = tall * self.random.range(0.17, 0.24);
            let reach = radius.ceil() as isize + 1;
            for dy in -reach..=reach {
                for dx in -reach..=reach {
                    let (fx, fy) = (dx as f32 / radius, dy as f32 / radius);
                    let leaf = self
                        .noise
                        .value(dx as f32 * 0.55 + seed, dy as f32 * 0.55 + k as f32 * 9.0)
                        - 0.5;
                    let d = (fx * fx + fy * fy).sqrt() + leaf * 0.4;
                    let cover = ((1.0 - d) * radius * 0.7).clamp(0.0, 1.0);
                    if cover <= 0.0 {
                        continue;
                    }
                    let normal = Vec3::new(fx, -fy + 0.2 + leaf, 0.6).normalize_or(Vec3::Y);
                    let lit = light.on(normal) * (0.75 + 0.25 * (fx * side).clamp(-1.0, 1.0) + leaf * 0.5);
                    let body = colour * lit;
                    let at = (cx as isize + dx, cy as isize + dy);
                    self.canvas.mix(at.0, at.1, body + (light.fog - body) * fog, cover);
                }
            }
        }
    }

    /// Flowers from the far edge to the viewer's feet, more and smaller with distance.
    pub fn flowers(&mut self, from_px: f32, palette: &[Vec3], amount: f32) {
        let (w, h) = (self.view.width as f32, self.view.height as f32);
        let light = self.light.on_floor();
        let depth = (h - from_px).max(1.0);
        let count = (amount * 2600.0 * w / 256.0) as usize;
        let (seed, bare) = (self.random.range(0.0, 200.0), self.random.range(0.05, 0.36));
        let mut rows: Vec<f32> = (0..count).map(|_| self.random.unit()).collect();
        rows.sort_by(f32::total_cmp);
        for r in rows {
            let k = super::maths::powf(r, 0.75);
            let y = from_px + k * depth * 1.02;
            let x = self.random.range(-4.0, w + 4.0);
            let radius = (0.45 + 3.4 * k * k + 0.9 * k) * self.random.range(0.75, 1.2);
            // Bare patches, in perspective.
            let patch = self
                .noise
                .value((x - w * 0.5) * 0.02 / (0.15 + k) + seed, k * 9.0 + seed);
            if patch < bare {
                continue;
            }
            let colour = palette[self.random.below(palette.len())] * self.random.range(0.75, 1.1);
            let lost = (1.0 - k) * 0.35;
            let shaded = colour * light;
            let lit = shaded + (self.light.fog - shaded) * (lost * lost + self.light.haze * 2.0 * (1.0 - k)).min(0.9);
            if radius > 1.6 {
                self.stem(x, y, radius * 2.2, light);
                self.blossom(x, y, radius, lit, light);
            } else {
                self.spot(x, y, radius, lit);
            }
        }
    }

    fn stem(&mut self, x: f32, y: f32, tall: f32, light: Vec3) {
        let green = srgb(70, 116, 48) * light * 0.8;
        for k in 0..tall as usize {
            self.canvas.mix(x as isize, y as isize + k as isize, green, 0.75);
        }
    }

    fn blossom(&mut self, x: f32, y: f32, radius: f32, lit: Vec3, light: Vec3) {
        let turn = self.random.range(0.0, 1.2);
        for petal in 0..5 {
            let angle = turn + petal as f32 * 1.2566;
            let (s, c) = (super::maths::sin(angle), super::maths::cos(angle));
            let shade = 0.82 + 0.22 * -s;
            self.spot(x + c * radius * 0.6, y + s * radius * 0.5, radius * 0.55, lit * shade);
        }
        self.spot(x, y, radius * 0.34, srgb(244, 200, 70) * light);
    }

    /// A soft-edged filled circle.
    pub fn spot(&mut self, x: f32, y: f32, radius: f32, colour: Vec3) {
        let reach = radius as isize + 2;
        for dy in -reach..=reach {
            for dx in -reach..=reach {
                let (px, py) = (x as isize + dx, y as isize + dy);
                let (fx, fy) = (px as f32 + 0.5 - x, py as f32 + 0.5 - y);
                let cover = (radius + 0.5 - (fx * fx + fy * fy).sqrt()).clamp(0.0, 1.0);
                if cover > 0.0 {
                    self.canvas.mix(px, py, colour, cover);
                }
            }
        }
    }

    /// Tufts of grass blades standing in the foreground.
    pub fn tufts(&mut self, from_px: f32, count: usize, colour: Vec3) {
        let (w, h) = (self.view.width as f32, self.view.height as f32);
        let light = self.light.on(Vec3::new(0.0, 0.7, 0.7));
        for _ in 0..count {
            let k = self.random.unit();
            let (x, y) = (self.random.range(0.0, w), from_px + k * (h - from_px + 4.0));
            let tall = 2.0 + 7.0 * k * self.random.range(0.6, 1.3);
            for _ in 0..3 + self.random.below(3) {
                let lean = self.random.range(-0.5, 0.5);
                let tone = colour * light * self.random.range(0.7, 1.35);
                for step in 0..(tall as usize) {
                    let t = step as f32 / tall;
                    self.canvas.mix(
                        (x + lean * tall * t * t) as isize,
                        (y - step as f32) as isize,
                        tone * (0.7 + 0.5 * t),
                        0.7,
                    );
                }
            }
        }
    }
}
