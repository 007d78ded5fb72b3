//! Towns: skylines, streets, villages, a castle on a hill, rooftops.

use super::catalogue::Catalogue;
use super::ground::{Material, Surface};
use super::land::Stage;
use super::light::{Light, Weather};
use super::maths::{self, floor, lerp, smoothstep, srgb};
use super::noise::Noise;
use super::shade::{self, Ground};
use super::sky::SkyOptions;
use super::solid::{Paint, Pose, Solids, turn_y};
use super::terrain::{March, Spot, mountains};
use super::view::Painter;
use super::water::Water;
use glam::Vec3;

/// Adds one of a noun's models standing at `at`, `tall` high, its front turned by `facing` radians from the viewer.
pub fn furnish(
    solids: &mut Solids,
    catalogue: &Catalogue,
    random: &mut crate::random::Random,
    nouns: &[&str],
    at: Vec3,
    longest: f32,
    facing: f32,
) {
    let Some(noun) = random.pick(nouns) else {
        return;
    };
    let found: Vec<usize> = catalogue
        .nouns
        .get(*noun)
        .into_iter()
        .flatten()
        .copied()
        .filter(|i| !catalogue.models[*i].weak)
        .collect();
    if found.is_empty() {
        return;
    }
    let index = found[random.below(found.len())];
    let model = &catalogue.models[index];
    let front = model.front_yaw.unwrap_or(0.0).to_radians();
    let pose = Pose {
        turn: turn_y(facing - front),
        scale: longest,
        offset: at,
    };
    let paint = if model.tint == super::catalogue::Tint::All {
        let [r, g, b] = model.main_rgb;
        Paint::Whole { colour: srgb(r, g, b) }
    } else {
        Paint::Own
    };
    solids.add(catalogue.mesh(index), &pose, paint, 0);
}

impl Painter<'_> {
    fn town_sky(&mut self) {
        let clouds = if self.light.weather == Weather::Clear {
            self.random.range(0.0, 0.5)
        } else {
            0.9
        };
        self.sky(SkyOptions {
            clouds,
            aurora: false,
            stars: 0.5,
        });
    }

    /// Rows of towers, nearer ones darker and taller, windows lit by the hour. `base_px`: their feet.
    fn towers(&mut self, base_px: f32, tallest: f32) {
        let (w, unit) = (self.view.width as f32, self.view.unit());
        let lamps = self.light.lamps().max(if self.light.weather == Weather::Clear {
            0.0
        } else {
            0.25
        });
        for layer in 0..3 {
            let near = layer as f32 / 2.0;
            let fog = lerp(0.62, 0.06, near) + self.light.haze * (1.5 - near);
            let mut x = -self.random.range(0.0, 12.0);
            let centre = self.random.range(0.3, 0.7) * w;
            while x < w {
                let wide = unit * self.random.range(0.035, 0.085) * lerp(0.8, 1.25, near);
                let hump = maths::exp(-((x - centre) / (0.38 * w)) * ((x - centre) / (0.38 * w)));
                let tall = unit * tallest * lerp(0.85, 0.62, near) * (0.30 + 0.75 * hump) * self.random.range(0.5, 1.1);
                self.tower(x, base_px, wide, tall, fog.min(0.92), lamps);
                x += wide + unit * self.random.range(-0.004, 0.014);
            }
        }
    }

    fn tower(&mut self, x: f32, base: f32, wide: f32, tall: f32, fog: f32, lamps: f32) {
        let light = self.light;
        let tone = [
            srgb(132, 140, 152),
            srgb(160, 150, 138),
            srgb(104, 118, 138),
            srgb(146, 120, 108),
            srgb(178, 180, 184),
            srgb(86, 96, 112),
        ][self.random.below(6)]
            * self.random.range(0.8, 1.15);
        let sunny_right = light.direction.x > 0.0;
        let front = light.on(Vec3::new(0.0, 0.0, 1.0));
        let flank = light.on(Vec3::new(if sunny_right { 1.0 } else { -1.0 }, 0.0, 0.2));
        let hazed = |c: Vec3| c + (light.fog - c) * fog;
        let split = self.random.range(0.55, 0.75);
        let setback = if self.random.chance(0.4) {
            self.random.range(0.55, 0.85)
        } else {
            2.0
        };
        let top = base - tall;
        let glass = srgb(120, 150, 180).lerp(light.middle, 0.5);
        let (pitch_x, pitch_y) = (
            (wide * self.random.range(0.12, 0.17)).max(2.6),
            self.random.range(3.0, 4.4),
        );
        let lit_share = lamps * self.random.range(0.25, 0.6);
        let seed = self.random.range(0.0, 200.0);
        let glassy = self.random.range(0.25, 0.75);
        for row in (top.max(0.0) as usize)..((base.ceil().max(0.0) as usize).min(self.view.height)) {
            let up = (base - row as f32) / tall;
            let inset = if up > setback { wide * 0.16 } else { 0.0 };
            let (l, r) = (x + inset, x + wide - inset);
            let first = l.max(0.0) as usize;
            let last = (r.ceil().max(0.0) as usize).min(self.view.width);
            for px in first..last {
                let cover = (r - px as f32)
                    .min(1.0)
                    .min(px as f32 + 1.0 - l)
                    .min((row as f32 + 1.0 - top).min(1.0))
                    .clamp(0.0, 1.0);
                let across = (px as f32 + 0.5 - l) / (r - l);
                let right_face = across > split;
                let face = if right_face == sunny_right { flank } else { front * 0.8 };
                let mut body = tone * face * lerp(0.86, 1.05, up);
                let (u, v) = ((px as f32 + 0.5 - x) / pitch_x, (row as f32 + 0.5 - top) / pitch_y);
                let (fu, fv) = (u - floor(u), v - floor(v));
                let window = smoothstep(0.12, 0.3, fu)
                    * smoothstep(0.92, 0.75, fu)
                    * smoothstep(0.15, 0.35, fv)
                    * smoothstep(0.95, 0.8, fv);
                let mut pane = hazed(body.lerp(glass * face * 0.75, glassy));
                let draw = self.noise.value(floor(u) + seed, floor(v) + seed * 0.5);
                // The lattice's numbers are even in [0, 1) at whole coordinates plus one fraction: close enough.
                if draw < lit_share {
                    let glow =
                        [srgb(255, 210, 130), srgb(255, 232, 180), srgb(200, 220, 255)][(draw * 97.0) as usize % 3];
                    pane = hazed(pane).lerp(glow * 0.95, lerp(0.95, 0.45, fog));
                }
                body = hazed(body).lerp(pane, window);
                self.canvas.mix(px as isize, row as isize, body, cover);
            }
        }
        if tall > self.view.unit() * 0.2 && self.random.chance(0.35) {
            let mast = tall * self.random.range(0.10, 0.22);
            let colour = hazed(tone * front * 0.6);
            for row in ((top - mast).max(0.0) as usize)..(top.max(0.0) as usize) {
                let half = 0.35 + 0.5 * (row as f32 - top + mast) / mast;
                self.span(row, x + wide * 0.5 - half, x + wide * 0.5 + half, colour);
            }
        }
    }

    /// A skyline, over water or behind a paved square.
    pub fn skyline(&mut self, stage: &Stage) {
        self.town_sky();
        let base = self.view.horizon_px + self.view.unit() * 0.02;
        let tallest = self
            .random
            .range(0.42, 0.62)
            .min(self.view.horizon_px / self.view.unit() * 0.95);
        self.towers(base, tallest);
        let mut water = Water::lake(base, self.view.height as f32);
        water.chop = self.random.range(0.15, 0.4);
        water.deep = srgb(22, 44, 66);
        self.water(water);
        if stage.standing {
            self.near_ground(stage, Material::Paving, 0.0);
        }
    }

    /// A flat roof with a low wall, towers behind it.
    pub fn rooftop(&mut self, stage: &Stage) {
        self.town_sky();
        let unit = self.view.unit();
        let base = stage.edge_px + unit * 0.02;
        let tallest = self.random.range(0.4, 0.55);
        self.towers(base, tallest);
        let surface = Surface::new(Material::Roof, &mut self.random);
        self.ground(&surface, &stage.camera, stage.edge_px, 1.0, 0.0);
        let wall = surface.base.lerp(srgb(190, 184, 176), 0.6);
        let tall = unit * 0.055;
        let face = wall * self.light.on(Vec3::new(0.0, 0.1, 1.0));
        let cap = wall * 1.1 * self.light.on(Vec3::Y);
        for row in 0..(tall as usize + 4) {
            let y = stage.edge_px + 2.0 - tall + row as f32;
            if y < 0.0 {
                continue;
            }
            let from_top = row as f32 / tall;
            let colour = if from_top < 0.28 {
                cap
            } else if from_top < 0.36 {
                face * 0.55
            } else {
                face * lerp(1.0, 0.72, from_top)
            };
            self.span(y as usize, 0.0, self.view.width as f32, colour);
        }
    }

    /// A street between houses, seen along its length.
    pub fn street(&mut self, stage: &Stage, catalogue: &Catalogue, solids: &mut Solids) {
        self.town_sky();
        let horizon = self.view.horizon_px;
        self.towers(horizon + 3.0, 0.28);
        let asphalt = Surface::new(Material::Asphalt, &mut self.random);
        let paving = Surface::new(Material::Paving, &mut self.random);
        let grass = Surface::new(
            if self.light.weather == Weather::Snow {
                Material::Snow
            } else {
                Material::Grass
            },
            &mut self.random,
        );
        let (w, h) = (self.view.width, self.view.height);
        let light = self.light.on_floor();
        let wet = self.light.weather == Weather::Rain;
        for y in (horizon as usize)..h {
            for x in 0..w {
                let Some((p, t)) = stage.camera.ground(x as f32 + 0.5, y as f32 + 0.5) else {
                    continue;
                };
                let footprint = t / self.view.focal_px;
                let side = p.x.abs();
                let edge = |at: f32| smoothstep(at - footprint, at + footprint, side);
                let road = asphalt.at(self.noise, p, footprint);
                let dash = maths::sin(p.z * 2.6) > 0.0;
                let line = (1.0 - edge(0.03)) * f32::from(u8::from(dash));
                let mut c = road.lerp(srgb(232, 226, 200), line * 0.85);
                c = c.lerp(srgb(170, 168, 164), edge(0.95));
                c = c.lerp(paving.at(self.noise, p, footprint), edge(1.0));
                c = c.lerp(grass.at(self.noise, p, footprint), edge(1.45));
                let mut colour = c * light;
                if wet && side < 0.95 {
                    colour = colour * 0.6 + self.light.horizon * 0.18;
                }
                let lost = 1.0 - maths::exp(-(self.light.haze + 0.012) * t);
                self.canvas.pixels[y * w + x] = colour + (self.light.fog - colour) * lost;
            }
        }
        self.line_street(catalogue, solids);
    }

    /// Houses, lamps, trees and cars on both sides of a street.
    fn line_street(&mut self, catalogue: &Catalogue, solids: &mut Solids) {
        let houses: &[&str] = if self.random.chance(0.5) {
            &["townhouse", "apartment building", "shop"]
        } else {
            &["house", "townhouse", "shop"]
        };
        let quarter = std::f32::consts::FRAC_PI_2;
        for side in [-1.0f32, 1.0] {
            let mut z = -0.7 - self.random.range(0.0, 0.6);
            while z > -7.0 {
                let size = self.random.range(2.0, 2.6);
                let at = Vec3::new(side * (1.42 + size * 0.36), 0.0, z - size * 0.5);
                furnish(solids, catalogue, &mut self.random, houses, at, size, -side * quarter);
                z -= size * 0.95;
            }
            let mut z = 0.0 - self.random.range(0.0, 1.0);
            while z > -6.0 {
                let at = Vec3::new(side * 1.16, 0.0, z);
                if self.random.chance(0.5) {
                    furnish(
                        solids,
                        catalogue,
                        &mut self.random,
                        &["street lamp"],
                        at,
                        1.25,
                        -side * quarter,
                    );
                } else {
                    furnish(solids, catalogue, &mut self.random, &["tree"], at, 1.1, 0.0);
                }
                z -= self.random.range(1.8, 3.0);
            }
            if self.random.chance(0.7) {
                let at = Vec3::new(side * 0.62, 0.0, -self.random.range(1.5, 6.0));
                let facing = if side > 0.0 { std::f32::consts::PI } else { 0.0 };
                furnish(
                    solids,
                    catalogue,
                    &mut self.random,
                    &["hatchback", "sedan", "taxi", "van", "car"],
                    at,
                    0.95,
                    facing,
                );
            }
        }
    }

    /// Cottages among trees, hills behind.
    pub fn village(&mut self, stage: &Stage, catalogue: &Catalogue, solids: &mut Solids) {
        let mut behind = *stage;
        behind.standing = true;
        self.hills(&behind);
        let houses: &[&str] = &["house", "medieval house", "stone house", "farmhouse", "barn"];
        let mut row = -1.5;
        let snow = self.light.weather == Weather::Snow;
        while row > -6.0 {
            let count = 2 + self.random.below(2);
            for k in 0..count {
                let x = (k as f32 - (count - 1) as f32 * 0.5) * (1.6 - row * 0.22) + self.random.range(-0.5, 0.5);
                if stage.standing && x.abs() < 0.9 && row > -4.0 {
                    continue;
                }
                let size = self.random.range(1.25, 1.7);
                let facing = -x.signum() * self.random.range(0.1, 0.8);
                furnish(
                    solids,
                    catalogue,
                    &mut self.random,
                    houses,
                    Vec3::new(x, 0.0, row),
                    size,
                    facing,
                );
                let tree = if snow { "pine tree" } else { "tree" };
                let at = Vec3::new(x + self.random.range(0.9, 1.3), 0.0, row - self.random.range(-0.2, 0.8));
                let size = self.random.range(0.9, 1.4);
                furnish(solids, catalogue, &mut self.random, &[tree], at, size, 0.0);
            }
            row -= self.random.range(1.8, 2.6);
        }
    }

    /// A castle on a hill.
    pub fn castle(&mut self, stage: &Stage, catalogue: &Catalogue) {
        self.town_sky();
        let noise = self.noise;
        let offset = self.random.range(0.0, 190.0);
        let eye = stage.camera.eye.y;
        let away = self.random.range(10.0, 12.5);
        let x0 = self.random.range(-0.9, 0.9);
        let tall = self.random.range(1.6, 2.4);
        let march = March {
            eye,
            near: if stage.standing { 5.0 } else { 1.6 },
            far: 60.0,
            step: 1.014,
            bottom_px: self.view.height as f32,
            haze: 0.016,
            relief: 1.5,
        };
        let crown = |x: f32, z: f32| {
            let (dx, dz) = (x - x0, z - away);
            // Flat where the walls stand.
            tall * (1.0 - smoothstep(1.9, 7.0, (dx * dx + dz * dz).sqrt()))
                + mountains(noise, x, z, offset, 20.0, 58.0, 4.0)
        };
        let height = |x: f32, z: f32| {
            let base = crown(x, z) + 0.25 * smoothstep(2.0, 7.0, z) * (noise.fbm(x * 0.5 + offset, z * 0.5, 3) - 0.5);
            let clear = ((x - x0) * (x - x0) + (z - away) * (z - away)).sqrt() < 3.0;
            if !clear && floor(z / 0.34) * 0.34 > 8.5 && z < 20.0 {
                let dense = 0.6 * noise.value(x * 0.35 + offset, z * 0.35 + 9.0);
                if let Some((up, ..)) = super::terrain::cone_tree(noise, x + offset, z, 0.34, 0.75, dense) {
                    return base + up;
                }
            }
            base
        };
        let (a, b) = (srgb(96, 142, 62), srgb(140, 168, 80));
        let snowy = self.light.weather == Weather::Snow;
        let material = |noise: &Noise, spot: Spot| {
            let ground = crown(spot.x, spot.z);
            let clear = ((spot.x - x0) * (spot.x - x0) + (spot.z - away) * (spot.z - away)).sqrt() < 3.0;
            if spot.z > 22.0 {
                let rock = srgb(126, 128, 138).lerp(srgb(240, 244, 250), smoothstep(1.6, 2.2, spot.height));
                return rock.lerp(srgb(92, 118, 70), smoothstep(1.0, 0.2, spot.height));
            }
            if !clear && spot.height > ground + 0.16 && floor(spot.z / 0.34) * 0.34 > 8.5 {
                return srgb(48, 88, 52) * lerp(0.6, 1.2, ((spot.height - ground) / 0.75).min(1.0));
            }
            let n = noise.fbm(spot.x * 1.6, spot.z * 1.6, 3);
            let grass = a.lerp(b, n) * (0.85 + 0.3 * n);
            if snowy {
                srgb(236, 242, 250) * (0.9 + 0.1 * n)
            } else {
                grass
            }
        };
        self.march(march, height, material);
        // The walls stand behind the brow of the hill: they are drawn between its far and its near side.
        let at = Vec3::new(x0, tall - 0.05, stage.camera.eye.z - away);
        let size = self.random.range(3.0, 3.8);
        let facing = self.random.range(-0.6, 0.6);
        let mut walls = Solids::default();
        furnish(&mut walls, catalogue, &mut self.random, &["castle"], at, size, facing);
        let mut mask = vec![0; self.view.width * self.view.height];
        let haze = Light {
            haze: self.light.haze * 0.5,
            ..*self.light
        };
        shade::render(
            &walls,
            &stage.camera,
            &haze,
            Ground::None,
            self.canvas,
            &mut mask,
            self.noise,
        );
        let brow = March {
            far: away - 1.6,
            ..march
        };
        self.march(brow, height, material);
        if stage.standing {
            self.near_ground(stage, if snowy { Material::Snow } else { Material::Grass }, 4.0);
        }
    }
}
