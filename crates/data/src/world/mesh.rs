//! Meshes of the model pack: triangles with linear vertex colours and a tint mask.

use super::WorldError;
use glam::Vec3;
use std::collections::HashMap;

/// One model: y up, the lowest point at y = 0, x and z centred, the longest side 1.
#[derive(Debug, Default, Clone)]
pub struct Mesh {
    pub positions: Vec<Vec3>,
    /// Linear RGB, and how far the vertex may be recoloured (0 to 1).
    pub colours: Vec<[f32; 4]>,
    pub triangles: Vec<[u16; 3]>,
    /// A normal for each corner of a smooth model; empty for a flat-shaded one.
    pub corner_normals: Vec<[Vec3; 3]>,
}

impl Mesh {
    /// Reads a GLB file with one triangle primitive. `crease_degrees`: neighbouring faces that meet at less than this
    /// angle are shaded smoothly; `None` for flat faces.
    pub fn from_glb(id: &str, bytes: &[u8], crease_degrees: Option<f32>) -> Result<Self, WorldError> {
        let bad = |what: &str| WorldError::Model {
            id: id.to_owned(),
            what: what.to_owned(),
        };
        let glb = gltf::Gltf::from_slice(bytes).map_err(|error| bad(&error.to_string()))?;
        let blob = glb.blob.as_deref().ok_or_else(|| bad("it has no binary chunk"))?;
        let primitive = glb
            .meshes()
            .flat_map(|mesh| mesh.primitives())
            .next()
            .ok_or_else(|| bad("it has no mesh"))?;
        let reader = primitive.reader(|_| Some(blob));
        let positions: Vec<Vec3> = reader
            .read_positions()
            .ok_or_else(|| bad("it has no positions"))?
            .map(Vec3::from)
            .collect();
        let colours: Vec<[f32; 4]> = match reader.read_colors(0) {
            Some(colours) => colours.into_rgba_f32().collect(),
            None => vec![[0.5, 0.5, 0.5, 1.0]; positions.len()],
        };
        let indices: Vec<u16> = reader
            .read_indices()
            .ok_or_else(|| bad("it has no indices"))?
            .into_u32()
            .map(|i| i as u16)
            .collect();
        let triangles: Vec<[u16; 3]> = indices.chunks_exact(3).map(|t| [t[0], t[1], t[2]]).collect();
        if triangles.iter().flatten().any(|i| usize::from(*i) >= positions.len()) || colours.len() != positions.len() {
            return Err(bad("an index points past its vertices"));
        }
        let mut mesh = Self {
            positions,
            colours,
            triangles,
            corner_normals: Vec::new(),
        };
        if let Some(degrees) = crease_degrees {
            mesh.corner_normals = mesh.creased(degrees);
        }
        Ok(mesh)
    }

    /// The normal of a triangle, its length twice the area.
    fn face_normal(&self, triangle: [u16; 3]) -> Vec3 {
        let [a, b, c] = triangle.map(|i| self.positions[usize::from(i)]);
        (b - a).cross(c - a)
    }

    /// Corner normals averaged over the faces around a point that lie within the crease angle.
    fn creased(&self, degrees: f32) -> Vec<[Vec3; 3]> {
        let limit = super::maths::cos(degrees.to_radians());
        // Vertices are split; points that coincide are one. Positions lie on a grid of 1/4096.
        let key = |p: Vec3| [p.x, p.y, p.z].map(|v| (v * 4096.0).round() as i32);
        let mut around: HashMap<[i32; 3], Vec<usize>> = HashMap::new();
        let faces: Vec<Vec3> = self.triangles.iter().map(|t| self.face_normal(*t)).collect();
        for (face, triangle) in self.triangles.iter().enumerate() {
            for corner in triangle {
                around
                    .entry(key(self.positions[usize::from(*corner)]))
                    .or_default()
                    .push(face);
            }
        }
        self.triangles
            .iter()
            .enumerate()
            .map(|(face, triangle)| {
                let own = faces[face].normalize_or_zero();
                triangle.map(|corner| {
                    around[&key(self.positions[usize::from(corner)])]
                        .iter()
                        .map(|other| faces[*other])
                        .filter(|n| n.normalize_or_zero().dot(own) >= limit)
                        .sum::<Vec3>()
                        .normalize_or(own)
                })
            })
            .collect()
    }

    /// Extent of the model: (lowest, highest) corner.
    pub fn bounds(&self) -> (Vec3, Vec3) {
        self.positions
            .iter()
            .fold((Vec3::splat(f32::MAX), Vec3::splat(f32::MIN)), |(low, high), p| {
                (low.min(*p), high.max(*p))
            })
    }
}
