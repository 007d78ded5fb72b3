//! The camera.

use super::maths;
use glam::Vec3;

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
