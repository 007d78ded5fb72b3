//! Solid things: placed models and boxes, as triangles with colours and normals.

use super::camera::Camera;
use super::maths;
use super::mesh::Mesh;
use glam::{Mat3, Vec3};

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
pub(super) struct Facet {
    pub points: [Vec3; 3],
    pub normals: [Vec3; 3],
    pub colours: [Vec3; 3],
    pub object: u8,
    /// Corners differ in normal or colour.
    pub blended: bool,
}

/// Triangles of every model of a picture. y is up, the ground is y = 0, the camera looks towards -z.
#[derive(Debug, Default)]
pub struct Solids {
    pub(super) facets: Vec<Facet>,
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
    pub(super) fn ball(&self) -> (Vec3, f32) {
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
