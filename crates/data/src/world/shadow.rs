//! Shadows: the light's view of the solids, and the soft dark where they stand.

use super::light::Light;
use super::maths;
use super::raster::Depth;
use super::solid::Solids;
use glam::Vec3;

/// Side of the light's depth map and of the map of contact shadows, in samples.
const SHADOW: usize = 320;
const CONTACT: usize = 128;

/// The light's view of the solids.
pub(super) struct Shadow {
    map: Depth,
    basis: [Vec3; 3],
    centre: Vec3,
    pub scale: f32,
    bias: f32,
}

/// Offsets of the soft shadow's taps, in units of its radius: two rings and the middle, of which the outer ring and the middle
/// come first.
const TAPS: [(f32, f32); 12] = [
    (0.95, 0.25),
    (-0.25, 0.95),
    (-0.95, -0.25),
    (0.25, -0.95),
    (0.0, 0.0),
    (0.33, 0.0),
    (-0.165, 0.286),
    (-0.165, -0.286),
    (0.5, 0.5),
    (-0.5, 0.5),
    (0.5, -0.5),
    (-0.5, -0.5),
];

pub(super) const ALL_TAPS: usize = TAPS.len();

/// Where so many taps agree, the others are not asked.
const DECIDING: usize = 5;

impl Shadow {
    /// `ball`: centre and radius of a ball around the solids.
    pub fn new(solids: &Solids, (centre, radius): (Vec3, f32), light: &Light) -> Self {
        let to_light = light.direction;
        let right = Vec3::Y.cross(to_light).normalize_or(Vec3::X);
        let basis = [right, to_light.cross(right), to_light];
        let scale = (SHADOW as f32 / 2.0 - 4.0) / radius.max(1e-3);
        let mut shadow = Self {
            map: Depth::depths(SHADOW, SHADOW, f32::MIN),
            basis,
            centre,
            scale,
            bias: 2.2 / scale,
        };
        for facet in &solids.facets {
            let corners = facet.points.map(|p| shadow.place(p));
            shadow.map.triangle(0, corners);
        }
        shadow
    }

    #[inline]
    fn place(&self, p: Vec3) -> Vec3 {
        let d = p - self.centre;
        let half = SHADOW as f32 / 2.0;
        Vec3::new(
            half + d.dot(self.basis[0]) * self.scale,
            half - d.dot(self.basis[1]) * self.scale,
            d.dot(self.basis[2]),
        )
    }

    /// The share of the sun that reaches a point, 0 to 1. `radius`: of the penumbra, in map samples; `taps`: how many are
    /// taken at most.
    #[inline]
    pub fn lit(&self, p: Vec3, radius: f32, taps: usize) -> f32 {
        let s = self.place(p);
        let size = SHADOW as f32;
        if s.x < -radius || s.y < -radius || s.x > size + radius || s.y > size + radius {
            return 1.0;
        }
        let mut open = 0.0;
        for (i, (dx, dy)) in TAPS[..taps].iter().enumerate() {
            if i == DECIDING && (open == 0.0 || open == DECIDING as f32) {
                return open / DECIDING as f32;
            }
            let (x, y) = (s.x + dx * radius, s.y + dy * radius);
            if x < 0.0 || y < 0.0 || x >= size || y >= size {
                open += 1.0;
                continue;
            }
            let depth = self.map.nearest[y as usize * SHADOW + x as usize];
            open += if depth > s.z + self.bias { 0.0 } else { 1.0 };
        }
        open / taps as f32
    }
}

/// How much of the sky a floor point sees past what stands on it: soft dark under and around things.
pub(super) struct Contact {
    map: Vec<f32>,
    low: Vec3,
    scale: f32,
}

impl Contact {
    pub fn new(solids: &Solids, (centre, radius): (Vec3, f32)) -> Self {
        let radius = radius * 1.35 + 0.05;
        let scale = CONTACT as f32 / (2.0 * radius);
        let low = centre - Vec3::splat(radius);
        // Depth is minus the height: what is lowest counts.
        let mut depth = Depth::depths(CONTACT, CONTACT, f32::MIN);
        for facet in &solids.facets {
            let corners = facet
                .points
                .map(|p| Vec3::new((p.x - low.x) * scale, (p.z - low.z) * scale, -p.y.max(0.0)));
            depth.triangle(0, corners);
        }
        let reach = 0.22 * radius;
        let mut map: Vec<f32> = depth
            .nearest
            .iter()
            .map(|z| if *z > -1e6 { maths::exp(*z / reach) } else { 0.0 })
            .collect();
        for _ in 0..2 {
            blur(&mut map, CONTACT, 4);
        }
        Self { map, low, scale }
    }

    pub fn open(&self, p: Vec3) -> f32 {
        let x = (p.x - self.low.x) * self.scale - 0.5;
        let y = (p.z - self.low.z) * self.scale - 0.5;
        let limit = (CONTACT - 2) as f32;
        if x < 0.0 || y < 0.0 || x > limit || y > limit {
            return 1.0;
        }
        let (xi, yi) = (x as usize, y as usize);
        let (u, v) = (x - xi as f32, y - yi as f32);
        let at = |x: usize, y: usize| self.map[y * CONTACT + x];
        let top = at(xi, yi) * (1.0 - u) + at(xi + 1, yi) * u;
        let bottom = at(xi, yi + 1) * (1.0 - u) + at(xi + 1, yi + 1) * u;
        1.0 - 0.75 * (top * (1.0 - v) + bottom * v).min(1.0)
    }
}

/// Box blur of a square map, both ways.
fn blur(map: &mut [f32], side: usize, radius: usize) {
    let mut line = vec![0.0f32; side];
    let share = 1.0 / (2 * radius + 1) as f32;
    for vertical in [false, true] {
        for row in 0..side {
            let at = |i: usize| if vertical { i * side + row } else { row * side + i };
            for (i, value) in line.iter_mut().enumerate() {
                *value = map[at(i)];
            }
            let mut sum: f32 = line[..radius].iter().sum();
            for i in 0..side {
                sum += line.get(i + radius).copied().unwrap_or(0.0);
                if i > radius {
                    sum -= line[i - radius - 1];
                }
                map[at(i)] = sum * share;
            }
        }
    }
}
