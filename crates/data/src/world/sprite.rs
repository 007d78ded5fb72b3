//! Flat pictures with transparency standing in a scene like cardboard figures, with a cast shadow.

use super::camera::Camera;
use super::canvas::Canvas;
use super::light::Light;
use super::maths;
use glam::{Vec3, Vec4};

/// A drawing cut to its visible part, linear and premultiplied.
#[derive(Debug, Clone)]
pub struct Sprite {
    width: usize,
    height: usize,
    pixels: Vec<Vec4>,
}

/// Where a sprite stands in the world: its foot's middle and its height.
#[derive(Debug, Clone, Copy)]
pub struct Stand {
    pub foot: Vec3,
    pub tall: f32,
    /// Mirrored.
    pub flip: bool,
    /// Casts a shadow on the ground.
    pub grounded: bool,
}

impl Sprite {
    /// From straight-alpha sRGB bytes [height, width, 4]; `None` if nothing is visible.
    pub fn from_rgba(width: usize, height: usize, rgba: &[u8]) -> Option<Self> {
        let alpha = |x: usize, y: usize| rgba[(y * width + x) * 4 + 3];
        let (mut x0, mut y0, mut x1, mut y1) = (width, height, 0, 0);
        for y in 0..height {
            for x in 0..width {
                if alpha(x, y) > 20 {
                    (x0, y0, x1, y1) = (x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1));
                }
            }
        }
        if x1 <= x0 + 2 || y1 <= y0 + 2 {
            return None;
        }
        let table: Vec<f32> = (0..256).map(|v| maths::decode(v as f32 / 255.0)).collect();
        let mut pixels = Vec::with_capacity((x1 - x0) * (y1 - y0));
        for y in y0..y1 {
            for x in x0..x1 {
                let p = &rgba[(y * width + x) * 4..][..4];
                let a = f32::from(p[3]) / 255.0;
                let [r, g, b] = [p[0], p[1], p[2]].map(|v| table[usize::from(v)] * a);
                pixels.push(Vec4::new(r, g, b, a));
            }
        }
        Some(Self {
            width: x1 - x0,
            height: y1 - y0,
            pixels,
        })
    }

    /// Width over height.
    pub fn aspect(&self) -> f32 {
        self.width as f32 / self.height as f32
    }

    /// Mean linear colour of what is visible.
    pub fn mean(&self) -> Vec3 {
        let sum: Vec4 = self.pixels.iter().copied().sum();
        sum.truncate() / sum.w.max(1e-3)
    }

    /// Bilinear sample; u from the left and v from the top, 0 to 1; clear outside.
    fn at(&self, u: f32, v: f32) -> Vec4 {
        let (x, y) = (u * self.width as f32 - 0.5, v * self.height as f32 - 0.5);
        let (x0, y0) = (maths::floor(x), maths::floor(y));
        let (fx, fy) = (x - x0, y - y0);
        let pick = |dx: f32, dy: f32| {
            let (px, py) = (x0 + dx, y0 + dy);
            if px < 0.0 || py < 0.0 || px >= self.width as f32 || py >= self.height as f32 {
                Vec4::ZERO
            } else {
                self.pixels[py as usize * self.width + px as usize]
            }
        };
        let top = pick(0.0, 0.0).lerp(pick(1.0, 0.0), fx);
        let bottom = pick(0.0, 1.0).lerp(pick(1.0, 1.0), fx);
        top.lerp(bottom, fy)
    }

    /// The sprite's box in a picture (left, top, right, bottom), pixels.
    pub fn projected(&self, camera: &Camera, stand: &Stand) -> [f32; 4] {
        let half = stand.tall * self.aspect() * 0.5;
        let a = camera.project(stand.foot + Vec3::new(-half, stand.tall, 0.0));
        let b = camera.project(stand.foot + Vec3::new(half, 0.0, 0.0));
        [a.x, a.y, b.x, b.y]
    }

    /// Draws the shadow on the ground and then the sprite, lit by the hour, as `object` of the mask.
    pub fn draw(
        &self,
        canvas: &mut Canvas,
        mask: &mut [u8],
        camera: &Camera,
        light: &Light,
        stand: &Stand,
        object: u8,
    ) {
        if stand.grounded {
            self.shadow(canvas, camera, light, stand);
        }
        let [l, t, r, b] = self.projected(camera, stand);
        let tint = (light.sun * 0.62 + light.sky + light.fill).min(Vec3::splat(1.15));
        let (w, h) = (canvas.width, canvas.height);
        let haze = 1.0 - maths::exp(-light.haze * (camera.eye.z - stand.foot.z).max(0.0));
        for y in t.max(0.0) as usize..(b.ceil().max(0.0) as usize).min(h) {
            for x in l.max(0.0) as usize..(r.ceil().max(0.0) as usize).min(w) {
                // Four samples a pixel: sprites are often drawn smaller than they are.
                let mut c = Vec4::ZERO;
                for (dx, dy) in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)] {
                    let u = (x as f32 + dx - l) / (r - l);
                    let v = (y as f32 + dy - t) / (b - t);
                    c += self.at(if stand.flip { 1.0 - u } else { u }, v) * 0.25;
                }
                if c.w > 0.004 {
                    let lit = c.truncate() * tint;
                    let lit = lit + (light.fog * c.w - lit) * haze;
                    let pixel = &mut canvas.pixels[y * w + x];
                    *pixel = *pixel * (1.0 - c.w) + lit;
                    if c.w > 0.5 {
                        mask[y * w + x] = object;
                    }
                }
            }
        }
    }

    /// The upright figure's shadow: a ground point is dark where its way to the light meets the figure.
    fn shadow(&self, canvas: &mut Canvas, camera: &Camera, light: &Light, stand: &Stand) {
        let (w, h) = (canvas.width, canvas.height);
        let dir = light.direction;
        let wide = stand.tall * self.aspect();
        let sun = maths::luminance(light.sun) * dir.y.max(0.0);
        let share = sun / (sun + maths::luminance(light.sky)).max(1e-4);
        for y in 0..h {
            for x in 0..w {
                let Some((p, _)) = camera.ground(x as f32 + 0.5, y as f32 + 0.5) else {
                    continue;
                };
                let (dx, dz) = (p.x - stand.foot.x, p.z - stand.foot.z);
                if dx.abs() > 3.0 * stand.tall + wide || dz.abs() > 3.0 * stand.tall {
                    continue;
                }
                // Soft dark right under it.
                let near = (dx / (wide * 0.55)) * (dx / (wide * 0.55)) + (dz / (wide * 0.22)) * (dz / (wide * 0.22));
                let mut keep = 1.0 - 0.5 * maths::exp(-near * 1.6);
                if dz < 0.02 && dir.z > 0.05 {
                    let way = -dz.min(0.0) / dir.z;
                    let (u, v) = (dx + way * dir.x, way * dir.y);
                    let blur = 0.015 + 0.05 * way;
                    let mut cover = 0.0;
                    for (bx, by) in [(-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0), (0.0, 0.0)] {
                        let (u, v) = (u + bx * blur, v + by * blur);
                        let su = u / wide + 0.5;
                        cover += self.at(if stand.flip { 1.0 - su } else { su }, 1.0 - v / stand.tall).w * 0.2;
                    }
                    keep *= 1.0 - cover * share * 0.8;
                }
                canvas.pixels[y * w + x] *= keep;
            }
        }
    }
}
