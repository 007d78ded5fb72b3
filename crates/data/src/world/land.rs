//! Landscapes: lakes, mountains, hills, forests, deserts, seas, beaches, fields.

use super::camera::Camera;
use super::ground::{Material, Surface};
use super::light::{Time, Weather};
use super::maths::{self, floor, lerp, smoothstep, srgb};
use super::sky::SkyOptions;
use super::terrain::{Alpine, March, alpine, cone_tree, mountains};
use super::view::Painter;
use super::water::Water;
use glam::Vec3;

/// What a landscape leaves free for things to stand on.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    pub camera: Camera,
    /// Things stand in front: the near ground stays empty.
    pub standing: bool,
    /// Row of the near ground's far edge where things stand.
    pub edge_px: f32,
}

impl Painter<'_> {
    fn usual_sky(&mut self, aurora: bool) {
        let clouds = if self.light.weather == Weather::Clear {
            if self.light.is_night() {
                self.random.range(0.0, 0.25)
            } else {
                self.random.range(0.05, 0.55)
            }
        } else {
            self.random.range(0.8, 1.0)
        };
        let clouds = if aurora { 0.0 } else { clouds };
        self.sky(SkyOptions {
            clouds,
            aurora,
            stars: 1.0,
        });
    }

    /// Rows below the horizon of a flat thing at this distance.
    fn below(&self, eye: f32, z: f32) -> f32 {
        self.view.horizon_px + self.view.focal_px * eye / z
    }

    /// A range with snow above `snow`, trees below `wood`, from `near` on; heights in units where the eye is at 0.3.
    fn range(&mut self, near: f32, tall: f32, snow: f32, wood: f32, forest: f32, bottom_px: f32) {
        let offset = self.random.range(0.0, 190.0);
        let palette = Alpine::new(self.random.unit());
        let march = March {
            eye: 0.3,
            near,
            far: 70.0,
            step: 1.017,
            bottom_px,
            haze: 0.014,
            relief: 1.25,
        };
        let noise = self.noise;
        let shore = near;
        // Whole cells only: a tree is never cut by the wood's edge.
        let in_wood = |z: f32, from: f32| floor(z / 0.26) * 0.26 > from;
        let height = |x: f32, z: f32| {
            let bank = smoothstep(shore, shore + 3.0, z) * 0.35 * noise.fbm(x * 0.22 + offset, z * 0.22, 2);
            let peaks = mountains(noise, x, z, offset, shore + 2.5, 44.0, tall);
            let ground = bank + peaks;
            if forest > 0.0 && ground < wood && z < 26.0 && in_wood(z, shore) {
                let dense = forest * (0.35 + 0.9 * noise.value(x * 0.3 + offset, z * 0.3));
                if let Some((up, ..)) = cone_tree(noise, x + offset, z, 0.26, 0.62, dense) {
                    return ground + up;
                }
            }
            ground
        };
        let trees = srgb(44, 82, 50).lerp(srgb(70, 104, 56), self.random.unit());
        let snowy = self.light.weather == Weather::Snow || snow < 1.0;
        self.march(march, height, |noise, spot| {
            if forest > 0.0 && spot.z < 26.0 && in_wood(spot.z, shore) {
                let dense = forest * (0.35 + 0.9 * noise.value(spot.x * 0.3 + offset, spot.z * 0.3));
                if let Some((_, up, side)) = cone_tree(noise, spot.x + offset, spot.z, 0.26, 0.62, dense)
                    && spot.height < wood + 0.62
                {
                    let shade = lerp(0.55, 1.25, up) * (1.0 + 0.35 * side);
                    let body = if snowy {
                        trees.lerp(srgb(232, 240, 248), 0.45 * up)
                    } else {
                        trees
                    };
                    return body * shade;
                }
            }
            alpine(noise, spot, snow, wood, &palette)
        });
    }

    /// Conifers at the sides of the picture, the middle left free.
    fn framing_conifers(&mut self, base_px: f32, tall: (f32, f32), count: usize, middle_free: f32) {
        let (w, unit) = (self.view.width as f32, self.view.unit());
        let mut trees: Vec<(f32, f32)> = (0..count)
            .map(|_| {
                let side = self.random.chance(0.5);
                let u = self.random.unit() * (0.5 - middle_free * 0.5);
                let x = if side { u } else { 1.0 - u };
                (base_px + self.random.range(-0.02, 0.06) * unit, x * w)
            })
            .collect();
        trees.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (base, x) in trees {
            let tall = unit * self.random.range(tall.0, tall.1);
            let tone = self.random.range(0.75, 1.15);
            let haze = self.light.haze;
            self.conifer(x, base, tall, srgb(46, 88, 56) * tone, (0.06 + haze * 3.0).min(0.7));
        }
    }

    /// A lake before mountains. `pines`: a forest along the shore.
    pub fn lake(&mut self, stage: &Stage, pines: bool, aurora: bool) {
        self.usual_sky(aurora);
        let shore_z = self.random.range(8.0, 11.0);
        let shore = self.below(0.3, shore_z);
        let snow = self.random.range(2.6, 5.5);
        let tall = self.random.range(8.0, 13.0);
        let forest = if pines { 0.85 } else { self.random.range(0.0, 0.3) };
        self.range(shore_z, tall, snow, 0.9, forest, shore);
        let bottom = self.view.height as f32;
        let mut water = Water::lake(shore, bottom);
        water.chop = self.random.range(0.03, 0.16);
        water.deep = srgb(20, 62, 84).lerp(srgb(30, 92, 98), self.random.unit());
        self.water(water);
        if stage.standing {
            let material = if self.light.weather == Weather::Snow {
                Material::Snow
            } else {
                Material::Grass
            };
            self.near_ground(stage, material, 7.0);
        } else if self.random.chance(if pines { 0.6 } else { 0.3 }) {
            let base = bottom * 1.04;
            self.framing_conifers(base, (0.35, 0.62), 3, 0.62);
        }
    }

    /// The ground that things stand on, from the stage's edge to the viewer.
    pub fn near_ground(&mut self, stage: &Stage, material: Material, edge_px: f32) {
        let surface = Surface::new(material, &mut self.random);
        self.ground(&surface, &stage.camera, stage.edge_px, 2.0, edge_px);
        if material == Material::Grass {
            let count = self.view.width / 4;
            self.tufts(stage.edge_px, count, surface.base * 0.9);
        }
    }

    /// Peaks under snow, a snow field in front.
    pub fn snowy_mountains(&mut self, stage: &Stage) {
        self.usual_sky(false);
        let edge = self.below(0.3, 8.0);
        let tall = self.random.range(10.0, 14.0);
        self.range(8.0, tall, 0.9, 0.8, 0.5, edge + 2.0);
        let surface = Surface::new(Material::Snow, &mut self.random);
        self.ground(&surface, &stage.camera, edge - 1.0, 4.0, 3.0);
        let base = edge + self.view.unit() * 0.10;
        let free = if stage.standing { 0.55 } else { 0.2 };
        self.framing_conifers(base, (0.12, 0.26), 14, free);
    }

    /// Rolling hills of meadows and small woods.
    pub fn hills(&mut self, stage: &Stage) {
        self.usual_sky(false);
        let offset = self.random.range(0.0, 190.0);
        let noise = self.noise;
        let tall = self.random.range(2.2, 3.6);
        if self.random.chance(0.35) {
            self.range(22.0, 11.0, 4.5, 0.8, 0.0, self.view.horizon_px + 5.0);
        }
        let near = if stage.standing { 4.0 } else { 1.2 };
        let march = March {
            eye: 0.75,
            near,
            far: 45.0,
            step: 1.02,
            bottom_px: self.view.height as f32,
            haze: 0.030,
            relief: 1.7,
        };
        let hill = |x: f32, z: f32| {
            let lift = smoothstep(2.0, 12.0, z);
            tall * lift * (noise.fbm(x * 0.20 + offset, z * 0.17 + offset, 2) * 1.5 - 0.42)
        };
        let wood = |x: f32, z: f32| noise.value(x * 0.5 + offset + 60.0, z * 0.5);
        let height = |x: f32, z: f32| {
            let ground = hill(x, z);
            if z > 6.0 && wood(x, z) > 0.74 {
                ground + 0.16 * noise.value(x * 9.0, z * 9.0)
            } else {
                ground
            }
        };
        let (a, b) = (srgb(104, 156, 62), srgb(158, 182, 82));
        let (a, b) = if self.random.chance(0.25) {
            (srgb(150, 150, 70), srgb(190, 172, 92))
        } else {
            (a, b)
        };
        self.march(march, height, |noise, spot| {
            if spot.z > 6.0 && wood(spot.x, spot.z) > 0.74 {
                return srgb(52, 96, 46) * (0.7 + 0.6 * noise.value(spot.x * 9.0, spot.z * 9.0));
            }
            let field = noise.value(spot.x * 0.32 + 20.0 + offset, spot.z * 0.32);
            let fine = noise.fbm(spot.x * 6.0, spot.z * 6.0, 3) - 0.5;
            a.lerp(b, smoothstep(0.3, 0.7, field)) * (1.0 + fine * 0.45)
        });
        if stage.standing {
            self.near_ground(stage, Material::Grass, 4.0);
        } else {
            for _ in 0..self.random.below(4) {
                let (x, unit) = (self.random.range(0.05, 0.95) * self.view.width as f32, self.view.unit());
                let base = self.view.horizon_px + unit * self.random.range(0.12, 0.3);
                let tall = (base - self.view.horizon_px) * self.random.range(0.7, 1.1);
                self.round_tree(x, base, tall, srgb(74, 122, 52), 0.05);
            }
        }
    }

    /// A wood of conifers, layer behind layer in haze.
    pub fn forest(&mut self, stage: &Stage) {
        self.usual_sky(false);
        let (w, unit) = (self.view.width as f32, self.view.unit());
        let horizon = self.view.horizon_px;
        let edge = horizon + unit * 0.06;
        let snow = self.light.weather == Weather::Snow;
        let material = if snow { Material::Snow } else { Material::Grass };
        let surface = Surface::new(material, &mut self.random);
        let mut darker = surface;
        darker.base *= 0.72;
        darker.other *= 0.72;
        let layers = 5;
        let ground_from = edge - unit * 0.02;
        self.ground(&darker, &stage.camera, ground_from, 5.0, 3.0);
        for layer in 0..layers {
            let near = layer as f32 / (layers - 1) as f32;
            let tall = lerp(0.20, if stage.standing { 0.46 } else { 0.62 }, near * near);
            let base = lerp(
                edge,
                edge + unit * if stage.standing { 0.10 } else { 0.24 },
                near * near,
            );
            let count = (lerp(44.0, if stage.standing { 7.0 } else { 9.0 }, near) * w / unit) as usize;
            let fog = lerp(0.72, 0.02, smoothstep(0.0, 0.95, near)) + self.light.haze * (1.0 - near) * 2.0;
            for k in 0..count {
                let x = (k as f32 + self.random.range(-0.4, 0.4) + 0.5) / count as f32;
                // A glade stays open where things stand.
                if near > 0.6 && (x - 0.5).abs() < if stage.standing { 0.30 } else { 0.12 } {
                    continue;
                }
                let tall = unit * tall * self.random.range(0.72, 1.25);
                let base = base + unit * self.random.range(-0.012, 0.012);
                let tone = self.random.range(0.75, 1.2);
                self.conifer(x * w, base, tall, srgb(48, 92, 54) * tone, fog.min(0.93));
            }
        }
        if self.light.weather == Weather::Clear && matches!(self.light.time, Time::Dawn | Time::Sunrise | Time::Day) {
            self.shafts(0.10);
        }
        if !snow {
            self.tufts(edge + unit * 0.15, self.view.width / 3, srgb(84, 128, 56));
        }
    }

    /// Slanting shafts of light from the sun's side.
    fn shafts(&mut self, strength: f32) {
        let (w, h, unit) = (self.view.width, self.view.height, self.view.unit());
        let (sx, sy) = self.view.disc(self.light).unwrap_or((w as f32 * 0.5, 0.0));
        let seed = self.random.range(0.0, 200.0);
        for y in 0..h {
            for x in 0..w {
                let (dx, dy) = (x as f32 - sx, y as f32 - sy + unit * 0.35);
                if dy <= 1.0 {
                    continue;
                }
                let beam = smoothstep(0.5, 0.85, self.noise.value(dx / dy * 9.0 + seed, seed));
                let fade = smoothstep(1.1, 0.1, dy / unit) * smoothstep(0.0, 0.3, dy / unit);
                self.canvas.pixels[y * w + x] += self.light.sun * (beam * fade * strength);
            }
        }
    }

    /// Dunes.
    pub fn desert(&mut self, stage: &Stage) {
        self.usual_sky(false);
        let offset = self.random.range(0.0, 190.0);
        let noise = self.noise;
        let tall = self.random.range(1.3, 2.6);
        let march = March {
            eye: 0.8,
            near: if stage.standing { 4.0 } else { 1.0 },
            far: 45.0,
            step: 1.007,
            bottom_px: self.view.height as f32,
            haze: 0.020,
            relief: 2.6,
        };
        let dune = |x: f32, z: f32| {
            let lift = smoothstep(2.0, 15.0, z);
            let warp = noise.value(x * 0.16 + offset, z * 0.16) * 2.2;
            let n = noise.value(x * 0.13 + offset + warp * 0.35, z * 0.17 + warp * 0.3 + offset);
            // Crests are rounder far away, where a sharp one would fall between two steps.
            let (t, round) = (2.0 * n - 1.0, 0.02 + 0.006 * z);
            let crest = 1.0 - (t * t + round * round).sqrt() + round;
            tall * lift * (crest * crest * 1.1 - 0.22)
        };
        let (warm, slant) = (self.random.unit(), self.random.range(-3.0, 3.0));
        let (a, b) = (
            srgb(232, 184, 112).lerp(srgb(224, 152, 92), warm),
            srgb(206, 152, 88).lerp(srgb(190, 116, 68), warm),
        );
        self.march(march, dune, |noise, spot| {
            let warp = noise.value(spot.x * 1.3 + offset, spot.z * 1.3) * 2.0;
            let ripple = maths::sin((spot.z * 5.0 + spot.x * slant + warp) * 3.0) * smoothstep(9.0, 2.0, spot.z);
            a.lerp(
                b,
                0.45 + 0.25 * ripple + (noise.value(spot.x * 0.7 + offset, spot.z * 0.7) - 0.5) * 0.5,
            )
        });
        if stage.standing {
            let mut surface = Surface::new(Material::Sand, &mut self.random);
            (surface.base, surface.other) = (a, b);
            self.ground(&surface, &stage.camera, stage.edge_px, 5.0, 5.0);
        }
    }

    /// The open sea.
    pub fn sea(&mut self, stage: &Stage, material: Option<Material>) {
        self.usual_sky(false);
        let horizon = self.view.horizon_px;
        if self.random.chance(0.2) {
            self.range(30.0, 7.0, 12.0, 1.2, 0.0, horizon + 2.0);
        }
        let stormy = matches!(self.light.weather, Weather::Rain);
        let mut water = Water::lake(horizon, self.view.height as f32);
        water.chop = if stormy {
            self.random.range(0.7, 1.0)
        } else {
            self.random.range(0.3, 0.7)
        };
        water.eye = 0.8;
        water.deep = srgb(12, 70, 104).lerp(srgb(18, 104, 118), self.random.unit());
        self.water(water);
        if let Some(material) = material
            && stage.standing
        {
            self.near_ground(stage, material, 5.0);
        }
    }

    /// Sand before the sea, with foam along the edge.
    pub fn beach(&mut self, stage: &Stage) {
        self.sea(stage, None);
        let (w, unit) = (self.view.width, self.view.unit());
        let h = self.view.height as f32;
        let edge = if stage.standing {
            stage.edge_px
        } else {
            lerp(self.view.horizon_px, h, self.random.range(0.35, 0.6))
        };
        let surface = Surface::new(Material::Sand, &mut self.random);
        let slope = self.random.range(-0.16, 0.16);
        let seed = self.random.range(0.0, 200.0);
        let light = self.light.on_floor();
        let noise = self.noise;
        let shore = |x: usize| {
            let u = (x as f32 - w as f32 * 0.5) / unit;
            edge + unit
                * (slope * u + 0.03 * maths::sin(u * 5.0 + seed) + 0.02 * (noise.value(u * 9.0 + seed, 3.0) - 0.5))
        };
        let foam = Vec3::splat(0.92) * light;
        for x in 0..w {
            let line = shore(x);
            let first = (line - unit * 0.07).max(self.view.horizon_px) as usize;
            for y in first..self.view.height {
                let d = y as f32 - line;
                let Some((p, t)) = stage.camera.ground(x as f32 + 0.5, y as f32 + 0.5) else {
                    continue;
                };
                let pixel = &mut self.canvas.pixels[y * w + x];
                // Shallow water shows the sand, wet sand is darker, foam lies on the edge and on one wave behind it.
                let sand = surface.at(noise, p, t / stage.camera.focal_px) * light;
                let wet = sand * lerp(0.62, 1.0, smoothstep(0.0, unit * 0.06, d));
                let shallow = smoothstep(-unit * 0.07, 0.0, d) * 0.55;
                *pixel = pixel.lerp(wet, if d > 0.0 { 1.0 } else { shallow });
                let lace = noise.fbm(x as f32 * 0.16 + seed, y as f32 * 0.34, 3);
                let band = |centre: f32, wide: f32| maths::exp(-((d - centre) / wide) * ((d - centre) / wide));
                let white = band(-0.004 * unit, 0.011 * unit)
                    + 0.7 * band(-0.04 * unit, 0.008 * unit) * smoothstep(0.4, 0.6, lace);
                *pixel = pixel.lerp(foam, (white * (0.55 + lace * 0.7)).min(0.95));
            }
        }
    }

    /// A field of flowers before hills. Returns the colour's name.
    pub fn flower_field(&mut self, stage: &Stage) -> &'static str {
        self.usual_sky(false);
        let (name, palette): (_, &[[u8; 3]]) = [
            ("red", &[[216, 40, 44], [196, 30, 52], [232, 72, 56]][..]),
            ("yellow", &[[250, 206, 44], [244, 186, 36], [255, 226, 96]][..]),
            ("purple", &[[136, 84, 190], [110, 70, 170], [166, 112, 206]][..]),
            ("pink", &[[244, 140, 180], [232, 110, 160], [250, 176, 200]][..]),
            ("white", &[[248, 248, 244], [236, 236, 240], [255, 250, 230]][..]),
            (
                "colourful",
                &[
                    [226, 48, 50],
                    [250, 206, 50],
                    [150, 90, 200],
                    [250, 250, 246],
                    [244, 130, 170],
                ][..],
            ),
        ][self.random.below(6)];
        let palette: Vec<Vec3> = palette.iter().map(|[r, g, b]| srgb(*r, *g, *b)).collect();
        let horizon = self.view.horizon_px;
        self.range(20.0, 10.0, 5.0, 0.9, 0.25, horizon + 6.0);
        let from = horizon + 3.0;
        let mut surface = Surface::new(Material::Grass, &mut self.random);
        // From afar the field has the flowers' colour.
        surface.base = surface.base.lerp(palette[0], 0.30);
        self.ground(&surface, &stage.camera, from, 3.0, 2.0);
        self.flowers(from + 1.0, &palette, 1.0);
        name
    }
}
