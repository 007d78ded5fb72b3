//! Solid things in front of a picture: placed models, the camera, light, shadows and their shading.

use super::canvas::Canvas;
use super::light::Light;
use super::maths::{self, smoothstep};
use super::mesh::Mesh;
use super::raster::Depth;
use glam::{Mat3, Vec3};

/// Samples along a picture's side for each pixel.
const SUPER: usize = 2;

/// How a model's own colours are used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Paint {
    /// As they are.
    Own,
    /// The masked part in this linear colour; `reference` is the luminance of the part's own main colour.
    Masked { colour: Vec3, reference: f32 },
    /// All of it in this linear colour.
    Whole { colour: Vec3 },
}

/// A triangle in the world with what its shading needs.
#[derive(Debug, Clone, Copy)]
struct Facet {
    points: [Vec3; 3],
    normals: [Vec3; 3],
    colours: [Vec3; 3],
    object: u8,
    /// Corners differ in normal or colour.
    blended: bool,
}

/// Triangles of every model of a picture. y is up, the ground is y = 0, the camera looks towards -z.
#[derive(Debug, Default)]
pub struct Solids {
    facets: Vec<Facet>,
}

/// Where a model stands: `point = offset + scale * (turn * model point)`.
#[derive(Debug, Clone, Copy)]
pub struct Pose {
    pub turn: Mat3,
    pub scale: f32,
    pub offset: Vec3,
}

impl Pose {
    /// Turned by `yaw` radians around the vertical.
    pub fn upright(yaw: f32, scale: f32, offset: Vec3) -> Self {
        Self {
            turn: turn_y(yaw),
            scale,
            offset,
        }
    }

    pub fn apply(&self, p: Vec3) -> Vec3 {
        self.offset + self.turn * p * self.scale
    }
}

/// A turn around the vertical; +z goes towards +x.
pub fn turn_y(angle: f32) -> Mat3 {
    let (s, c) = (maths::sin(angle), maths::cos(angle));
    Mat3::from_cols(Vec3::new(c, 0.0, -s), Vec3::Y, Vec3::new(s, 0.0, c))
}

/// A turn around the picture's horizontal; +y goes towards +z.
pub fn turn_x(angle: f32) -> Mat3 {
    let (s, c) = (maths::sin(angle), maths::cos(angle));
    Mat3::from_cols(Vec3::X, Vec3::new(0.0, c, s), Vec3::new(0.0, -s, c))
}

/// A turn in the picture's plane; +x goes towards +y.
pub fn turn_z(angle: f32) -> Mat3 {
    let (s, c) = (maths::sin(angle), maths::cos(angle));
    Mat3::from_cols(Vec3::new(c, s, 0.0), Vec3::new(-s, c, 0.0), Vec3::Z)
}

impl Solids {
    pub fn is_empty(&self) -> bool {
        self.facets.is_empty()
    }

    /// Takes everything away again.
    pub fn clear(&mut self) {
        self.facets.clear();
    }

    /// Adds a model as `object` (1 and up; 0 is scenery, which no mask shows).
    pub fn add(&mut self, mesh: &Mesh, pose: &Pose, paint: Paint, object: u8) {
        let points: Vec<Vec3> = mesh.positions.iter().map(|p| pose.apply(*p)).collect();
        let colours: Vec<Vec3> = mesh.colours.iter().map(|c| painted(*c, paint)).collect();
        self.facets.reserve(mesh.triangles.len());
        for (index, triangle) in mesh.triangles.iter().enumerate() {
            let at = triangle.map(usize::from);
            let corners = at.map(|i| points[i]);
            let face = (corners[1] - corners[0])
                .cross(corners[2] - corners[0])
                .normalize_or(Vec3::Y);
            let normals = mesh
                .corner_normals
                .get(index)
                .map_or([face; 3], |n| n.map(|n| pose.turn * n));
            let colours = at.map(|i| colours[i]);
            self.facets.push(Facet {
                points: corners,
                normals,
                colours,
                object,
                blended: !mesh.corner_normals.is_empty() || colours[0] != colours[1] || colours[0] != colours[2],
            });
        }
    }

    /// Adds a flat-coloured quadrilateral: scenery made on the spot.
    pub fn quad(&mut self, corners: [Vec3; 4], colour: Vec3, object: u8) {
        let normal = (corners[1] - corners[0])
            .cross(corners[2] - corners[0])
            .normalize_or(Vec3::Y);
        for [a, b, c] in [[0, 1, 2], [0, 2, 3]] {
            self.facets.push(Facet {
                points: [corners[a], corners[b], corners[c]],
                normals: [normal; 3],
                colours: [colour; 3],
                object,
                blended: false,
            });
        }
    }

    /// Adds a box between two corners.
    pub fn cuboid(&mut self, low: Vec3, high: Vec3, colour: Vec3, object: u8) {
        let p = |x: f32, y: f32, z: f32| low + (high - low) * Vec3::new(x, y, z);
        let faces = [
            [p(0., 0., 1.), p(1., 0., 1.), p(1., 1., 1.), p(0., 1., 1.)],
            [p(1., 0., 0.), p(0., 0., 0.), p(0., 1., 0.), p(1., 1., 0.)],
            [p(0., 0., 0.), p(0., 0., 1.), p(0., 1., 1.), p(0., 1., 0.)],
            [p(1., 0., 1.), p(1., 0., 0.), p(1., 1., 0.), p(1., 1., 1.)],
            [p(0., 1., 1.), p(1., 1., 1.), p(1., 1., 0.), p(0., 1., 0.)],
        ];
        for face in faces {
            self.quad(face, colour, object);
        }
    }

    /// The box around one object's projection (x0, y0, x1, y1), pixels; `None` without facets.
    pub fn projected_box(&self, camera: &Camera, object: u8) -> Option<[f32; 4]> {
        let mut found: Option<[f32; 4]> = None;
        for facet in self.facets.iter().filter(|f| f.object == object) {
            for p in facet.points {
                let s = camera.project(p);
                let b = found.get_or_insert([s.x, s.y, s.x, s.y]);
                *b = [b[0].min(s.x), b[1].min(s.y), b[2].max(s.x), b[3].max(s.y)];
            }
        }
        found
    }

    /// Centre and radius of a ball around everything.
    fn ball(&self) -> (Vec3, f32) {
        let (mut low, mut high) = (Vec3::splat(f32::MAX), Vec3::splat(f32::MIN));
        for facet in &self.facets {
            for p in facet.points {
                low = low.min(p);
                high = high.max(p);
            }
        }
        ((low + high) * 0.5, (high - low).length() * 0.5)
    }
}

/// A vertex's colour after painting.
fn painted(c: [f32; 4], paint: Paint) -> Vec3 {
    let own = Vec3::new(c[0], c[1], c[2]);
    match paint {
        Paint::Own => own,
        Paint::Whole { colour } => colour,
        Paint::Masked { colour, reference } => {
            // Lightness relative to the part's own main colour keeps folds and gradients.
            let light = (maths::luminance(own) / reference.max(0.01)).clamp(0.25, 1.5);
            own + (colour * light - own) * c[3]
        }
    }
}

/// A pinhole camera. With `level` it looks along the horizon and the horizon's row is a shift of the picture, so that
/// verticals stay upright and water mirrors about that row.
#[derive(Debug, Clone, Copy)]
pub struct Camera {
    pub eye: Vec3,
    right: Vec3,
    up: Vec3,
    forward: Vec3,
    /// Pixels.
    pub focal_px: f32,
    pub centre_px: (f32, f32),
}

impl Camera {
    /// Looks along -z from `height` above the ground at `distance` from the origin; the horizon is at `horizon_px`.
    pub fn level(height: f32, distance: f32, focal_px: f32, centre_x_px: f32, horizon_px: f32) -> Self {
        Self {
            eye: Vec3::new(0.0, height, distance),
            right: Vec3::X,
            up: Vec3::Y,
            forward: Vec3::NEG_Z,
            focal_px,
            centre_px: (centre_x_px, horizon_px),
        }
    }

    /// Looks down by `pitch` radians at a point, from `distance`.
    pub fn pitched(at: Vec3, pitch: f32, distance: f32, focal_px: f32, centre_px: (f32, f32)) -> Self {
        let (s, c) = (maths::sin(pitch), maths::cos(pitch));
        let back = Vec3::new(0.0, s, c);
        Self {
            eye: at + back * distance,
            right: Vec3::X,
            up: Vec3::new(0.0, c, -s),
            forward: -back,
            focal_px,
            centre_px,
        }
    }

    /// (x, y) in pixels and 1 / distance along the view. Points behind the camera get a depth of 0 or less.
    #[inline]
    pub fn project(&self, p: Vec3) -> Vec3 {
        let d = p - self.eye;
        let w = 1.0 / d.dot(self.forward);
        Vec3::new(
            self.centre_px.0 + self.focal_px * d.dot(self.right) * w,
            self.centre_px.1 - self.focal_px * d.dot(self.up) * w,
            w,
        )
    }

    /// The direction through a picture point; its part along the view is 1.
    #[inline]
    pub fn ray(&self, x: f32, y: f32) -> Vec3 {
        self.forward + self.right * ((x - self.centre_px.0) / self.focal_px)
            - self.up * ((y - self.centre_px.1) / self.focal_px)
    }

    /// Where the ray through a picture point meets the ground, and its distance along the view.
    #[inline]
    pub fn ground(&self, x: f32, y: f32) -> Option<(Vec3, f32)> {
        let ray = self.ray(x, y);
        if ray.y > -1e-4 {
            return None;
        }
        let t = -self.eye.y / ray.y;
        (t > 0.0).then(|| (self.eye + ray * t, t))
    }
}

/// What lies under the solids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ground {
    /// A floor that takes shadows; the share of its light that the sun gives.
    Floor,
    /// Water mirrors the solids; `ripple` is a strength from 0 to 1.
    Water { ripple: f32 },
    /// Nothing: space, under water, in the sky.
    None,
}

/// Side of the light's depth map and of the map of contact shadows, in samples.
const SHADOW: usize = 320;
const CONTACT: usize = 128;

/// The light's view of the solids.
struct Shadow {
    map: Depth,
    basis: [Vec3; 3],
    centre: Vec3,
    scale: f32,
    bias: f32,
}

/// Offsets of the soft shadow's taps, in units of its radius: two rings.
const TAPS: [(f32, f32); 12] = [
    (0.33, 0.0),
    (-0.165, 0.286),
    (-0.165, -0.286),
    (0.5, 0.5),
    (-0.5, 0.5),
    (0.5, -0.5),
    (-0.5, -0.5),
    (0.95, 0.25),
    (-0.25, 0.95),
    (-0.95, -0.25),
    (0.25, -0.95),
    (0.0, 0.0),
];

impl Shadow {
    fn new(solids: &Solids, light: &Light) -> Self {
        let (centre, radius) = solids.ball();
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

    /// The share of the sun that reaches a point, 0 to 1. `radius`: of the penumbra, in map samples.
    #[inline]
    fn lit(&self, p: Vec3, radius: f32) -> f32 {
        let s = self.place(p);
        let size = SHADOW as f32;
        if s.x < -radius || s.y < -radius || s.x > size + radius || s.y > size + radius {
            return 1.0;
        }
        let mut open = 0.0;
        for (dx, dy) in TAPS {
            let (x, y) = (s.x + dx * radius, s.y + dy * radius);
            if x < 0.0 || y < 0.0 || x >= size || y >= size {
                open += 1.0;
                continue;
            }
            let depth = self.map.nearest[y as usize * SHADOW + x as usize];
            open += if depth > s.z + self.bias { 0.0 } else { 1.0 };
        }
        open / TAPS.len() as f32
    }
}

/// How much of the sky a floor point sees past what stands on it: soft dark under and around things.
struct Contact {
    map: Vec<f32>,
    low: Vec3,
    scale: f32,
}

impl Contact {
    fn new(solids: &Solids) -> Self {
        let (centre, radius) = solids.ball();
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

    fn open(&self, p: Vec3) -> f32 {
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

/// Draws solids over a picture and writes their object numbers into `mask`.
pub fn render(
    solids: &Solids,
    camera: &Camera,
    light: &Light,
    ground: Ground,
    canvas: &mut Canvas,
    mask: &mut [u8],
    noise: &super::noise::Noise,
) {
    if solids.is_empty() {
        return;
    }
    let shadow = Shadow::new(solids, light);
    match ground {
        Ground::Floor => shade_floor(solids, camera, light, &shadow, canvas),
        Ground::Water { ripple } => mirror(solids, camera, light, &shadow, ripple, canvas, noise),
        Ground::None => {}
    }
    draw(solids, camera, light, &shadow, canvas, Some(mask), 1.0);
}

/// Darkens the floor by cast and contact shadows.
fn shade_floor(solids: &Solids, camera: &Camera, light: &Light, shadow: &Shadow, canvas: &mut Canvas) {
    let contact = Contact::new(solids);
    let sun = maths::luminance(light.sun) * light.direction.y.max(0.0);
    let share = sun / (sun + maths::luminance(light.sky)).max(1e-4);
    let (centre, radius) = solids.ball();
    // A shadow reaches as far as the lowest sun throws it.
    let reach = radius * (1.5 + 1.0 / light.direction.y.max(0.2));
    let softness = light.softness;
    for y in 0..canvas.height {
        let Some((_, far)) = camera.ground(camera.centre_px.0, y as f32 + 0.5) else {
            continue;
        };
        if far > 60.0 {
            continue;
        }
        for x in 0..canvas.width {
            let Some((p, _)) = camera.ground(x as f32 + 0.5, y as f32 + 0.5) else {
                continue;
            };
            if (p.x - centre.x).abs() > reach || (p.z - centre.z).abs() > reach {
                continue;
            }
            let lit = shadow.lit(p, softness);
            let keep = (1.0 - share * (1.0 - lit) * 0.92) * (1.0 - (1.0 - contact.open(p)) * (1.0 - 0.5 * share));
            canvas.pixels[y * canvas.width + x] *= keep;
        }
    }
}

/// Draws the solids upside down under the water line, broken by ripples.
fn mirror(
    solids: &Solids,
    camera: &Camera,
    light: &Light,
    shadow: &Shadow,
    ripple: f32,
    canvas: &mut Canvas,
    noise: &super::noise::Noise,
) {
    let flip = |v: Vec3| Vec3::new(v.x, -v.y, v.z);
    let mirrored = Solids {
        facets: solids
            .facets
            .iter()
            .map(|f| Facet {
                points: f.points.map(flip),
                ..*f
            })
            .collect(),
    };
    let mut image = Canvas::new(canvas.width, canvas.height);
    let mut covered = vec![0u8; canvas.width * canvas.height];
    draw(&mirrored, camera, light, shadow, &mut image, Some(&mut covered), 0.0);
    let (w, h) = (canvas.width, canvas.height);
    for y in 0..h {
        let Some((_, t)) = camera.ground(camera.centre_px.0, y as f32 + 0.5) else {
            continue;
        };
        for x in 0..w {
            let n = noise.value(x as f32 * 0.04 + 7.0, 40.0 / t + y as f32 * 0.35) - 0.5;
            let shift = n * (1.0 + 9.0 * ripple) * (y as f32 / h as f32);
            let sx = (x as f32 + shift).clamp(0.0, (w - 1) as f32) as usize;
            let sy = (y as f32 + shift * 0.4).clamp(0.0, (h - 1) as f32) as usize;
            if covered[sy * w + sx] > 0 {
                let under = &mut canvas.pixels[y * w + x];
                *under = *under * 0.42 + image.pixels[sy * w + sx] * 0.5;
            }
        }
    }
}

/// Rasterises and shades. Several samples of a pixel that see one triangle are shaded once.
fn draw(
    solids: &Solids,
    camera: &Camera,
    light: &Light,
    shadow: &Shadow,
    canvas: &mut Canvas,
    mut mask: Option<&mut [u8]>,
    floor: f32,
) {
    let (w, h) = (canvas.width, canvas.height);
    let mut depth = Depth::with_ids(w * SUPER, h * SUPER);
    let mut screen: Vec<[Vec3; 3]> = Vec::with_capacity(solids.facets.len());
    let scale = Vec3::new(SUPER as f32, SUPER as f32, 1.0);
    for (number, facet) in solids.facets.iter().enumerate() {
        let corners = facet.points.map(|p| camera.project(p) * scale);
        screen.push(corners);
        if corners.iter().all(|c| c.z > 0.02) {
            depth.triangle(number as u32, corners);
        }
    }
    let shader = Shader {
        solids,
        camera,
        light,
        shadow,
        screen: &screen,
        floor,
    };
    for y in 0..h {
        for x in 0..w {
            let top = (y * SUPER) * w * SUPER + x * SUPER;
            let at = [top, top + 1, top + w * SUPER, top + w * SUPER + 1];
            let ids = at.map(|i| depth.ids[i]);
            if ids == [0; 4] {
                continue;
            }
            let mut sum = Vec3::ZERO;
            let mut hits = 0;
            let mut done = [false; 4];
            for k in 0..4 {
                if done[k] || ids[k] == 0 {
                    continue;
                }
                let (mut sx, mut sy, mut sw, mut n) = (0.0, 0.0, 0.0, 0.0);
                for j in k..4 {
                    if ids[j] == ids[k] {
                        done[j] = true;
                        sx += (x * SUPER + j % 2) as f32 + 0.5;
                        sy += (y * SUPER + j / 2) as f32 + 0.5;
                        sw += depth.nearest[at[j]];
                        n += 1.0;
                    }
                }
                hits += n as usize;
                sum += shader.shade(ids[k] as usize - 1, sx / n, sy / n, sw / n) * n;
            }
            let pixel = &mut canvas.pixels[y * w + x];
            *pixel = (*pixel * (4 - hits) as f32 + sum) * 0.25;
            if let Some(mask) = mask.as_deref_mut()
                && hits >= 2
            {
                let id = ids.into_iter().find(|id| *id > 0).unwrap_or(1) as usize - 1;
                mask[y * w + x] = solids.facets[id].object;
            }
        }
    }
}

struct Shader<'a> {
    solids: &'a Solids,
    camera: &'a Camera,
    light: &'a Light,
    shadow: &'a Shadow,
    screen: &'a [[Vec3; 3]],
    /// 1 where a floor under the things darkens their lower parts, 0 in free space.
    floor: f32,
}

impl Shader<'_> {
    /// The light that a sample (in samples, with 1 / distance) sends to the eye.
    #[inline]
    fn shade(&self, number: usize, sx: f32, sy: f32, w: f32) -> Vec3 {
        let facet = &self.solids.facets[number];
        let (x, y) = (sx / SUPER as f32, sy / SUPER as f32);
        let ray = self.camera.ray(x, y);
        let point = self.camera.eye + ray / w;
        let (mut normal, mut colour) = (facet.normals[0], facet.colours[0]);
        if facet.blended {
            let [a, b, c] = self.screen[number];
            let area = (b.x - a.x) * (c.y - a.y) - (c.x - a.x) * (b.y - a.y);
            let u = (((sx - a.x) * (c.y - a.y) - (c.x - a.x) * (sy - a.y)) / area).clamp(0.0, 1.0);
            let v = (((b.x - a.x) * (sy - a.y) - (sx - a.x) * (b.y - a.y)) / area).clamp(0.0, 1.0 - u);
            let t = 1.0 - u - v;
            normal = (facet.normals[0] * t + facet.normals[1] * u + facet.normals[2] * v).normalize_or(normal);
            colour = facet.colours[0] * t + facet.colours[1] * u + facet.colours[2] * v;
        }
        if normal.dot(ray) > 0.0 {
            normal = -normal;
        }
        let light = self.light;
        let facing = normal.dot(light.direction);
        let sun = if facing > 0.0 {
            facing
                * self
                    .shadow
                    .lit(point + normal * (1.5 / self.shadow.scale), 1.6 + light.softness * 0.3)
        } else {
            0.0
        };
        // Things are darker near the floor they stand on; it also sends back some of its own colour.
        let open = 1.0 - self.floor * 0.38 * (1.0 - smoothstep(0.0, 0.3, point.y));
        let up = normal.y * 0.5 + 0.5;
        let ambient = (light.bounce * (1.0 - up) + light.sky * up) * open;
        // A little light from the viewer's side keeps faces readable.
        let towards = -normal.dot(ray.normalize_or(Vec3::NEG_Z));
        let fill = light.fill * towards.max(0.0);
        let half = (light.direction - ray.normalize_or(Vec3::NEG_Z)).normalize_or(Vec3::Y);
        let shine = maths::powf(normal.dot(half).max(0.0), 24.0) * 0.10 * (sun > 0.0) as u8 as f32;
        let seen = colour * (light.sun * sun + ambient + fill) + light.sun * shine;
        let haze = 1.0 - maths::exp(-light.haze * (1.0 / w));
        seen + (light.fog - seen) * haze
    }
}
