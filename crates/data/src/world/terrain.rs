//! Terrain as a height field, marched column by column from near to far: mountains, hills, dunes, forests of cones.

use super::maths::{self, lerp, smoothstep, srgb};
use super::noise::Noise;
use super::view::Painter;
use glam::Vec3;

/// A point of the terrain as its material sees it.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    /// Sideways, and away from the viewer.
    pub x: f32,
    pub z: f32,
    pub height: f32,
    pub normal: Vec3,
}

/// The stretch that is marched. Lengths are in the terrain's own units; the eye is at `eye` above its height 0.
#[derive(Debug, Clone, Copy)]
pub struct March {
    pub eye: f32,
    pub near: f32,
    pub far: f32,
    /// Each step is this much farther than the last, as a factor.
    pub step: f32,
    /// Rows at and above this one are painted.
    pub bottom_px: f32,
    /// Share lost to the horizon's colour grows with 1 - exp(-haze * distance).
    pub haze: f32,
    /// Slopes are lit as if they were this much steeper.
    pub relief: f32,
}

impl Painter<'_> {
    /// Draws a height field over what is there. `material` gives the linear colour in full white light.
    pub fn march(&mut self, march: March, height: impl Fn(f32, f32) -> f32, material: impl Fn(&Noise, Spot) -> Vec3) {
        let (w, h) = (self.view.width, self.view.height);
        let (focal, horizon) = (self.view.focal_px, self.view.horizon_px);
        let haze = march.haze + self.light.haze * 1.6;
        for x in 0..w {
            let slope = (x as f32 + 0.5 - self.view.centre_x()) / focal;
            let mut top = march.bottom_px.min(h as f32);
            let mut behind: Option<(usize, Vec3)> = None;
            let mut before: Option<Vec3> = None;
            let mut z = march.near;
            while z < march.far && top > 0.0 {
                let side = slope * z;
                let here = height(side, z);
                let row = horizon - focal * (here - march.eye) / z;
                if row < top {
                    let e = 0.012 * z;
                    let dx = (height(side + e, z) - here) / e;
                    let dz = (height(side, z + e) - here) / e;
                    let normal = Vec3::new(-dx * march.relief, 1.0, dz * march.relief).normalize_or(Vec3::Y);
                    let spot = Spot {
                        x: side,
                        z,
                        height: here,
                        normal,
                    };
                    let lit = material(self.noise, spot) * self.light.on(normal);
                    let lost = 1.0 - maths::exp(-haze * z);
                    let colour = lit + (self.light.fog - lit) * lost;
                    let from = before.unwrap_or(colour);
                    fill(self.canvas, x, row.max(0.0), top, from, colour, &mut behind);
                    top = row.max(0.0);
                    before = Some(colour);
                } else {
                    before = None;
                }
                z *= march.step;
            }
        }
    }
}

/// Fills rows `from_row` to `to_row` of a column, from `near` at the foot to `far` at the top, with exact coverage.
/// `behind`: the row that is only partly covered so far, and what was there before.
fn fill(
    canvas: &mut super::canvas::Canvas,
    x: usize,
    from_row: f32,
    to_row: f32,
    near: Vec3,
    far: Vec3,
    behind: &mut Option<(usize, Vec3)>,
) {
    let span = (to_row - from_row).max(1e-3);
    let first = from_row as usize;
    let last = (to_row.ceil() as usize).min(canvas.height);
    for row in (first..last).rev() {
        let share = (to_row.min(row as f32 + 1.0) - from_row.max(row as f32)).clamp(0.0, 1.0);
        let t = ((to_row - (row as f32 + 0.5)) / span).clamp(0.0, 1.0);
        let colour = near.lerp(far, t);
        let pixel = &mut canvas.pixels[row * canvas.width + x];
        let base = match *behind {
            Some((r, c)) if r == row => c,
            _ => *pixel,
        };
        *pixel += (colour - base) * share;
        *behind = Some((row, base));
    }
}

/// The cone trees of a forest: (height above the ground, place within the tree from foot 0 to tip 1, side -1 to 1).
#[inline]
pub fn cone_tree(noise: &Noise, x: f32, z: f32, cell: f32, tall: f32, density: f32) -> Option<(f32, f32, f32)> {
    let (u, v) = (x / cell, z / cell);
    let (i, j) = (maths::floor(u), maths::floor(v));
    // The lattice's own numbers, at whole coordinates, are the cell's random draws.
    let r = noise.value(i * 1.0, j * 1.0 + 100.0);
    if r > density {
        return None;
    }
    let jx = 0.38 + 0.24 * noise.value(i + 50.0, j);
    let jz = 0.38 + 0.24 * noise.value(i, j + 50.0);
    let size = 0.65 + 0.5 * noise.value(i + 70.0, j + 30.0);
    let (dx, dz) = (u - i - jx, v - j - jz);
    let d = (dx * dx + dz * dz).sqrt() / (0.36 * (0.75 + 0.35 * size));
    (d < 1.0).then(|| (tall * size * (1.0 - d), 1.0 - d, dx / 0.36))
}

/// Rock, snow, scree and high meadows of a mountain.
pub fn alpine(noise: &Noise, spot: Spot, snow_line: f32, tree_line: f32, palette: &Alpine) -> Vec3 {
    let n = noise.fbm(spot.x * 2.1 + 11.0, spot.z * 2.1, 4);
    let strata = noise.value(spot.x * 0.6, spot.height * 7.0 + n * 2.0);
    let steep = 1.0 - spot.normal.y;
    let rock = palette
        .rock
        .lerp(palette.dark, smoothstep(0.3, 0.75, n * 0.6 + strata * 0.4));
    let green = palette.meadow.lerp(palette.wood, smoothstep(0.35, 0.6, n));
    let low = smoothstep(
        tree_line + 0.25,
        tree_line - 0.25,
        spot.height + (n - 0.5) * 0.9 + steep * 0.4,
    );
    let snow = smoothstep(
        -0.14,
        0.14,
        spot.height - snow_line + (n - 0.5) * 1.5 - (steep - 0.35).max(0.0) * 1.7,
    );
    rock.lerp(green, low).lerp(srgb(226, 232, 242), snow)
}

/// Colours of a mountain.
#[derive(Debug, Clone, Copy)]
pub struct Alpine {
    pub rock: Vec3,
    pub dark: Vec3,
    pub meadow: Vec3,
    pub wood: Vec3,
}

impl Alpine {
    pub fn new(warm: f32) -> Self {
        Self {
            rock: srgb(128, 126, 132).lerp(srgb(150, 128, 108), warm),
            dark: srgb(74, 76, 88).lerp(srgb(94, 76, 66), warm),
            meadow: srgb(96, 122, 66),
            wood: srgb(38, 66, 42),
        }
    }
}

/// The height of a mountain range: ridges within an envelope that starts at `start` and ends by `end`.
pub fn mountains(noise: &Noise, x: f32, z: f32, offset: f32, start: f32, end: f32, tall: f32) -> f32 {
    let envelope = smoothstep(start, lerp(start, end, 0.45), z) * smoothstep(end * 1.25, end * 0.9, z);
    if envelope <= 0.0 {
        return 0.0;
    }
    let (u, v) = (x * 0.085 + offset, z * 0.085 + offset * 0.37);
    let warp = noise.value(u * 1.3 + 9.0, v * 1.3) * 0.5;
    let shape = noise.ridged(u + warp, v + warp * 0.6, 6);
    let broad = noise.value(u * 0.55 + 40.0, v * 0.55 + 7.0);
    envelope * tall * (0.04 + 1.15 * shape * (0.15 + 1.15 * broad))
}
