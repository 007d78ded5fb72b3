//! What falls or hangs between the viewer and the scene.

use super::light::Weather;
use super::maths::{lerp, smoothstep};
use super::view::Painter;
use glam::Vec3;

impl Painter<'_> {
    /// Draws rain or snow over the finished scene.
    pub fn fall(&mut self) {
        match self.light.weather {
            Weather::Clear | Weather::Cloudy | Weather::Fog => {}
            Weather::Rain => self.rain(),
            Weather::Snow => self.flakes(),
        }
    }

    /// Banks of mist on a foggy day, thickest a little under the horizon. They lie behind what stands in front.
    pub fn mist(&mut self) {
        if self.light.weather != Weather::Fog {
            return;
        }
        let (w, unit) = (self.view.width, self.view.unit());
        let seed = self.random.range(0.0, 200.0);
        let strength = self.random.range(0.30, 0.50);
        for y in 0..self.view.height {
            let v = (y as f32 - self.view.horizon_px) / unit;
            let band = smoothstep(-0.32, 0.02, v) * smoothstep(0.45, 0.05, v);
            for x in 0..w {
                let drift = self.noise.fbm(x as f32 / unit * 2.2 + seed, y as f32 / unit * 7.0, 3);
                let share = (band * strength * (0.45 + 1.1 * drift)).min(0.9);
                let pixel = &mut self.canvas.pixels[y * w + x];
                *pixel += (self.light.fog - *pixel) * share;
            }
        }
    }

    fn rain(&mut self) {
        let (w, h, unit) = (self.view.width as f32, self.view.height as f32, self.view.unit());
        let slant = self.random.range(-0.25, 0.25);
        let colour = self.light.horizon * 0.9 + Vec3::splat(0.12);
        for _ in 0..(w * h / 256.0) as usize {
            let (x, y) = (self.random.range(-10.0, w + 10.0), self.random.range(-20.0, h));
            let near = self.random.unit();
            let long = unit * lerp(0.02, 0.085, near * near);
            let share = lerp(0.10, 0.34, near);
            for step in 0..long as usize {
                let t = step as f32;
                let px = x + slant * t;
                let (xi, f) = (px as isize, px - px as isize as f32);
                self.canvas.mix(xi, (y + t) as isize, colour, share * (1.0 - f));
                self.canvas.mix(xi + 1, (y + t) as isize, colour, share * f);
            }
        }
    }

    fn flakes(&mut self) {
        let (w, h, unit) = (self.view.width as f32, self.view.height as f32, self.view.unit());
        let colour = self.light.on_floor().max(Vec3::splat(0.35)) * 0.98;
        for _ in 0..(w * h / 190.0) as usize {
            let (x, y) = (self.random.range(0.0, w), self.random.range(0.0, h));
            let near = self.random.unit();
            let radius = unit * lerp(0.0012, 0.0075, near * near * near * near);
            let reach = radius as isize + 2;
            let share = lerp(0.5, 0.92, near);
            for dy in -reach..=reach {
                for dx in -reach..=reach {
                    let (px, py) = (x as isize + dx, y as isize + dy);
                    let (fx, fy) = (px as f32 + 0.5 - x, py as f32 + 0.5 - y);
                    let cover = (radius + 0.5 - (fx * fx + fy * fy).sqrt()).clamp(0.0, 1.0);
                    self.canvas.mix(px, py, colour, cover * share);
                }
            }
        }
    }
}
