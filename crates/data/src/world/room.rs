//! Indoors: rooms with a wall, a floor and furniture; table tops; plain studio grounds.

use super::camera::Camera;
use super::catalogue::Catalogue;
use super::ground::{Material, Surface};
use super::land::Stage;
use super::maths::{self, lerp, smoothstep, srgb};
use super::solid::Solids;
use super::town::furnish;
use super::view::Painter;
use glam::Vec3;

/// Where the wall of a room stands behind things.
pub(super) const WALL_Z: f32 = -1.7;

/// What a room is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoomKind {
    Plain,
    Living,
    Bedroom,
    Kitchen,
    Bathroom,
    Office,
    Dining,
}

impl Painter<'_> {
    /// A wall and a floor. Returns where the wall stands (its z).
    pub fn room_shell(&mut self, camera: &Camera, wall_z: f32, kind: RoomKind) {
        let (w, h) = (self.view.width, self.view.height);
        let walls = [
            srgb(226, 218, 200),
            srgb(196, 208, 214),
            srgb(200, 212, 190),
            srgb(222, 190, 176),
            srgb(236, 234, 228),
            srgb(150, 170, 186),
            srgb(232, 214, 170),
            srgb(176, 164, 186),
        ];
        let wall = walls[self.random.below(walls.len())] * self.random.range(0.85, 1.0);
        let far = camera.eye.z - wall_z;
        let foot = camera.centre_px.1 + camera.focal_px * camera.eye.y / far;
        let material = match kind {
            RoomKind::Bathroom | RoomKind::Kitchen => Material::Tiles,
            RoomKind::Office => Material::Carpet,
            RoomKind::Bedroom if self.random.chance(0.4) => Material::Carpet,
            _ => Material::Planks,
        };
        let surface = Surface::new(material, &mut self.random);
        let lamp_x = self.random.range(0.2, 0.8);
        let unit = self.view.unit();
        let tile = matches!(kind, RoomKind::Bathroom);
        for y in 0..h.min(foot.max(0.0) as usize + 1) {
            let up = (foot - y as f32) / unit;
            for x in 0..w {
                let u = (x as f32 / w as f32 - lamp_x).abs();
                let mut c = wall
                    * (0.98 - 0.38 * u * u - 0.16 * smoothstep(0.15, 0.75, up))
                    * lerp(0.86, 1.0, smoothstep(0.0, 0.12, up));
                if tile {
                    let (tu, tv) = (x as f32 / unit * 14.0, up * 14.0);
                    let (fu, fv) = (tu - maths::floor(tu), tv - maths::floor(tv));
                    let edge = fu.min(1.0 - fu).min(fv.min(1.0 - fv));
                    c *= lerp(0.86, 1.0, smoothstep(0.02, 0.08, edge));
                }
                self.canvas.pixels[y * w + x] = c * 0.92;
            }
        }
        self.ground(&surface, camera, foot, 1.0, 0.0);
        // Skirting, its top edge lit, its foot in shade; the floor is darker near the wall.
        let skirt = (unit * 0.022).max(3.0);
        for row in 0..skirt as usize {
            let y = foot - row as f32 - 1.0;
            if y >= 0.0 && (y as usize) < h {
                let tone = if row == 0 {
                    0.6
                } else if row + 1 == skirt as usize {
                    1.08
                } else {
                    0.95
                };
                self.span(y as usize, 0.0, w as f32, srgb(238, 236, 230) * tone * 0.9);
            }
        }
        for y in (foot.max(0.0) as usize)..h {
            let near = smoothstep(0.0, unit * 0.16, y as f32 - foot);
            for pixel in &mut self.canvas.pixels[y * w..(y + 1) * w] {
                *pixel *= lerp(0.72, 1.0, near);
            }
        }
    }

    /// A window with sky, or framed pictures, on the wall.
    pub fn wall_things(&mut self, camera: &Camera, wall_z: f32, avoid_middle: bool) {
        let far = camera.eye.z - wall_z;
        let scale = camera.focal_px / far;
        let horizon = camera.centre_px.1;
        let (w, unit) = (self.view.width as f32, self.view.unit());
        let x = if avoid_middle {
            if self.random.chance(0.5) {
                self.random.range(0.08, 0.2)
            } else {
                self.random.range(0.8, 0.92)
            }
        } else {
            self.random.range(0.3, 0.7)
        } * w;
        if self.random.chance(0.55) {
            let (wide, tall) = (scale * self.random.range(1.0, 1.5), scale * self.random.range(1.1, 1.5));
            let foot = (horizon + scale * self.random.range(-0.1, 0.2)).min(horizon + unit * 0.06);
            self.window(x - wide * 0.5, foot - tall, wide, tall);
        } else {
            let (wide, tall) = (scale * self.random.range(0.7, 1.1), scale * self.random.range(0.6, 0.9));
            let y = horizon - scale * self.random.range(0.9, 1.2);
            self.picture(x - wide * 0.5, y, wide, tall);
        }
    }

    fn rect(&mut self, x: f32, y: f32, wide: f32, tall: f32, colour: Vec3) {
        let first = y.max(0.0) as usize;
        let last = ((y + tall).max(0.0).ceil() as usize).min(self.view.height);
        for row in first..last {
            self.span(row, x, x + wide, colour);
        }
    }

    fn window(&mut self, x: f32, y: f32, wide: f32, tall: f32) {
        let frame = (wide * 0.06).max(2.0);
        self.rect(
            x - frame,
            y - frame,
            wide + 2.0 * frame,
            tall + 2.0 * frame,
            srgb(240, 238, 232) * 0.95,
        );
        self.rect(
            x - frame * 1.6,
            y + tall + frame * 0.6,
            wide + 3.2 * frame,
            frame,
            srgb(225, 222, 214),
        );
        let (top, low) = (srgb(110, 174, 232), srgb(214, 232, 242));
        let seed = self.random.range(0.0, 200.0);
        let first = y.max(0.0) as usize;
        let last = ((y + tall).max(0.0) as usize).min(self.view.height);
        for row in first..last {
            let v = (row as f32 - y) / tall;
            for px in (x.max(0.0) as usize)..(((x + wide).max(0.0) as usize).min(self.view.width)) {
                let cloud = smoothstep(0.52, 0.75, self.noise.fbm(px as f32 * 0.03 + seed, v * 3.0, 4));
                let mut c = top.lerp(low, v).lerp(Vec3::splat(0.97), cloud * 0.8);
                let hill = 0.84 - 0.16 * self.noise.fbm(px as f32 * 0.03 + seed, 9.0, 3);
                if v > hill {
                    c = srgb(120, 164, 96).lerp(srgb(90, 138, 78), (v - hill) * 4.0);
                }
                self.canvas.pixels[row * self.view.width + px] = c;
            }
        }
        let bar = (wide * 0.025).max(1.2);
        self.rect(x + wide * 0.5 - bar, y, bar * 2.0, tall, srgb(240, 238, 232) * 0.92);
        self.rect(x, y + tall * 0.5 - bar, wide, bar * 2.0, srgb(240, 238, 232) * 0.92);
    }

    /// A framed picture of a small landscape.
    fn picture(&mut self, x: f32, y: f32, wide: f32, tall: f32) {
        let frame = (wide * 0.05).max(1.6);
        let wood = [
            srgb(92, 62, 40),
            srgb(40, 40, 44),
            srgb(200, 168, 96),
            srgb(232, 228, 220),
        ][self.random.below(4)];
        self.rect(x + 2.0, y + 2.5, wide, tall, srgb(120, 112, 104) * 0.8);
        self.rect(x, y, wide, tall, wood);
        self.rect(
            x + frame,
            y + frame,
            wide - 2.0 * frame,
            tall - 2.0 * frame,
            srgb(246, 244, 238),
        );
        let (ix, iy) = (x + frame * 2.0, y + frame * 2.0);
        let (iw, ih) = (wide - 4.0 * frame, tall - 4.0 * frame);
        let tones = [
            (srgb(150, 190, 220), srgb(90, 130, 90)),
            (srgb(240, 190, 140), srgb(150, 90, 80)),
            (srgb(220, 220, 210), srgb(90, 100, 120)),
        ][self.random.below(3)];
        self.rect(ix, iy, iw, ih * 0.6, tones.0);
        self.rect(ix, iy + ih * 0.6, iw, ih * 0.4, tones.1);
        self.spot(ix + iw * 0.7, iy + ih * 0.28, ih * 0.1, srgb(250, 232, 180));
    }

    /// A furnished room.
    pub fn room(&mut self, stage: &Stage, kind: RoomKind, catalogue: &Catalogue, solids: &mut Solids) {
        // A narrow picture steps back until the furniture along the wall is in it.
        let half = 0.5 * self.view.width as f32 / self.view.focal_px;
        let wall_z = if stage.standing {
            WALL_Z
        } else {
            stage.camera.eye.z - (1.5 / half).max(3.8)
        };
        self.room_shell(&stage.camera, wall_z, kind);
        self.wall_things(&stage.camera, wall_z, stage.standing);
        let mirror = if self.random.chance(0.5) { -1.0 } else { 1.0 };
        let rug = |painter: &mut Self, wide: f32, near: f32, far: f32| painter.rug(&stage.camera, wide, near, far);
        let mut put = |painter: &mut Self, nouns: &[&str], x: f32, back: f32, size: f32, turn: f32| {
            let at = Vec3::new(x * mirror, 0.0, wall_z + back);
            furnish(solids, catalogue, &mut painter.random, nouns, at, size, turn * mirror);
        };
        match kind {
            RoomKind::Plain => {
                if !stage.standing || self.random.chance(0.4) {
                    let x = self.random.range(1.25, 1.5);
                    put(self, &["houseplant", "potted plant"], x, 0.35, 0.9, 0.0);
                }
            }
            RoomKind::Living => {
                rug(self, 1.5, 0.75, -0.9);
                put(self, &["couch"], 0.0, 0.45, 1.65, 0.0);
                put(self, &["floor lamp"], 1.25, 0.35, 1.35, 0.0);
                if !stage.standing {
                    put(self, &["coffee table"], 0.0, 1.45, 0.85, 0.0);
                }
                if self.random.chance(0.6) {
                    put(self, &["houseplant"], -1.3, 0.4, 0.8, 0.0);
                }
                if !stage.standing && self.random.chance(0.5) {
                    put(self, &["armchair"], -1.35, 1.25, 0.8, 0.9);
                }
            }
            RoomKind::Bedroom => {
                put(self, &["double bed", "single bed"], 0.0, 1.05, 1.75, 0.0);
                put(self, &["nightstand", "bedside table"], 1.1, 0.35, 0.5, 0.0);
                put(self, &["wardrobe", "dresser"], -1.45, 0.4, 1.35, 0.25);
            }
            RoomKind::Kitchen => {
                put(self, &["refrigerator"], -1.25, 0.4, 1.4, 0.0);
                put(self, &["oven", "stove"], -0.45, 0.4, 0.8, 0.0);
                put(self, &["kitchen counter", "kitchen cabinet"], 0.35, 0.4, 0.8, 0.0);
                put(self, &["kitchen sink", "kitchen counter"], 1.15, 0.4, 0.8, 0.0);
            }
            RoomKind::Bathroom => {
                put(self, &["bathtub"], -0.75, 0.6, 1.5, 0.0);
                put(self, &["toilet"], 0.55, 0.5, 0.72, 0.0);
                put(self, &["sink"], 1.25, 0.35, 0.75, 0.0);
            }
            RoomKind::Office => {
                put(self, &["desk"], 0.0, 0.6, 1.5, 0.0);
                put(self, &["office chair"], 0.15, 1.35, 0.95, 2.6);
                put(self, &["bookcase", "bookshelf"], -1.4, 0.35, 1.5, 0.0);
            }
            RoomKind::Dining => {
                rug(self, 1.2, 0.9, -0.5);
                put(self, &["table", "wooden table"], 0.0, 1.05, 1.4, 0.0);
                put(self, &["chair", "dining chair"], -0.95, 1.05, 0.9, 1.57);
                put(self, &["chair", "dining chair"], 0.95, 1.05, 0.9, -1.57);
            }
        }
    }

    /// A rug on the floor: `wide` from the middle, from z `near` to z `far`.
    fn rug(&mut self, camera: &Camera, wide: f32, near: f32, far: f32) {
        let (a, b) = [
            (srgb(160, 60, 56), srgb(222, 196, 150)),
            (srgb(60, 90, 130), srgb(214, 214, 206)),
            (srgb(206, 190, 164), srgb(168, 148, 122)),
            (srgb(96, 120, 96), srgb(220, 206, 170)),
        ][self.random.below(4)];
        let light = self.light.on_floor();
        for y in 0..self.view.height {
            for x in 0..self.view.width {
                let Some((p, t)) = camera.ground(x as f32 + 0.5, y as f32 + 0.5) else {
                    continue;
                };
                let pixel_wide = t / camera.focal_px;
                let inside = ((wide - p.x.abs()) / pixel_wide)
                    .min((near - p.z) / pixel_wide / 2.0)
                    .min((p.z - far) / pixel_wide / 2.0);
                if inside > -0.5 {
                    let edge = (wide - p.x.abs()).min(near - p.z).min(p.z - far);
                    let border = smoothstep(0.06, 0.075, edge) * smoothstep(0.16, 0.145, edge);
                    let weave = 0.95 + 0.1 * self.noise.value(p.x * 60.0, p.z * 60.0);
                    let colour = a.lerp(b, border) * light * weave;
                    let pixel = &mut self.canvas.pixels[y * self.view.width + x];
                    *pixel += (colour - *pixel) * (inside + 0.5).clamp(0.0, 1.0);
                }
            }
        }
    }

    /// A table top that fills the foreground, a calm wall out of focus behind it.
    pub fn table(&mut self, camera: &Camera, edge_px: f32) {
        let (w, h, unit) = (self.view.width, self.view.height, self.view.unit());
        let tones = [
            srgb(120, 130, 140),
            srgb(176, 168, 156),
            srgb(86, 96, 108),
            srgb(196, 204, 204),
            srgb(120, 138, 120),
            srgb(206, 178, 150),
            srgb(96, 84, 80),
        ];
        let tone = tones[self.random.below(tones.len())];
        let (lx, ly) = (self.random.range(0.2, 0.8), self.random.range(0.0, 0.3));
        for y in 0..h {
            for x in 0..w {
                let (dx, dy) = (x as f32 / w as f32 - lx, y as f32 / h as f32 - ly);
                self.canvas.pixels[y * w + x] = tone * (1.05 - 0.75 * (dx * dx + dy * dy).sqrt());
            }
        }
        for _ in 0..self.random.below(7) {
            let (x, y) = (
                self.random.range(0.0, w as f32),
                self.random.range(0.0, edge_px.max(1.0)),
            );
            let r = unit * self.random.range(0.03, 0.07);
            let glow = tone * self.random.range(0.10, 0.3) + Vec3::new(0.03, 0.02, 0.0);
            self.dot(x, y, r, glow);
        }
        let surface = Surface::new(Material::Table, &mut self.random);
        self.ground(&surface, camera, edge_px, 1.5, 0.0);
    }

    /// One colour without end, a little lighter around the middle.
    pub fn studio(&mut self, colour: Vec3) {
        let (w, h, unit) = (self.view.width, self.view.height, self.view.unit());
        let (cx, cy) = (w as f32 * 0.5, h as f32 * 0.46);
        for y in 0..h {
            for x in 0..w {
                let (dx, dy) = ((x as f32 - cx) / unit, (y as f32 - cy) / unit);
                self.canvas.pixels[y * w + x] = colour * (1.0 - 0.30 * (dx * dx + dy * dy));
            }
        }
    }
}
