//! Draws solids into a picture: visibility at twice the resolution, sun, sky and bounced light, shadows, mirrors.

use super::camera::Camera;
use super::canvas::Canvas;
use super::light::Light;
use super::maths::{self, smoothstep};
use super::noise::Noise;
use super::raster::Depth;
use super::shadow::{ALL_TAPS, Contact, Shadow};
use super::solid::{Facet, Solids};
use glam::Vec3;

/// Samples along a picture's side for each pixel.
const SUPER: usize = 2;

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

/// Draws solids over a picture and writes their object numbers into `mask`.
pub fn render(
    solids: &Solids,
    camera: &Camera,
    light: &Light,
    ground: Ground,
    canvas: &mut Canvas,
    mask: &mut [u8],
    noise: &Noise,
) {
    if solids.is_empty() {
        return;
    }
    let ball = solids.ball();
    let shadow = Shadow::new(solids, ball, light);
    match ground {
        Ground::Floor => shade_floor(solids, ball, camera, light, &shadow, canvas),
        Ground::Water { ripple } => mirror(solids, camera, light, &shadow, ripple, canvas, noise),
        Ground::None => {}
    }
    draw(solids, camera, light, &shadow, canvas, Some(mask), 1.0);
}

/// Darkens the floor by cast and contact shadows.
fn shade_floor(
    solids: &Solids,
    ball: (Vec3, f32),
    camera: &Camera,
    light: &Light,
    shadow: &Shadow,
    canvas: &mut Canvas,
) {
    let contact = Contact::new(solids, ball);
    let sun = maths::luminance(light.sun) * light.direction.y.max(0.0);
    let share = sun / (sun + maths::luminance(light.sky)).max(1e-4);
    let (centre, radius) = ball;
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
            let lit = shadow.lit(p, softness, ALL_TAPS);
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
    noise: &Noise,
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
                * self.shadow.lit(
                    point + normal * (1.5 / self.shadow.scale),
                    1.6 + light.softness * 0.3,
                    if facet.object == 0 { 4 } else { ALL_TAPS },
                )
        } else {
            0.0
        };
        // Things are darker near the floor they stand on; it also sends back some of its own colour.
        let open = 1.0 - self.floor * 0.38 * (1.0 - smoothstep(0.0, 0.3, point.y));
        let up = normal.y * 0.5 + 0.5;
        let ambient = (light.bounce * (1.0 - up) + light.sky * up) * open;
        // A little light from the viewer's side keeps faces readable.
        let gaze = ray.normalize_or(Vec3::NEG_Z);
        let towards = -normal.dot(gaze);
        let fill = light.fill * towards.max(0.0);
        let mut seen = colour * (light.sun * sun + ambient + fill);
        if sun > 0.0 {
            let half = (light.direction - gaze).normalize_or(Vec3::Y);
            let s = normal.dot(half).max(0.0);
            // s^24
            let (s3, mut shine) = (s * s * s, 0.10);
            shine *= (s3 * s3) * (s3 * s3) * (s3 * s3) * (s3 * s3);
            seen += light.sun * shine;
        }
        if light.haze > 0.0 {
            seen += (light.fog - seen) * (1.0 - maths::exp(-light.haze / w));
        }
        seen
    }
}
