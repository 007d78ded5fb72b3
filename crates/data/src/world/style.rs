//! Styles as filters over a finished picture. They work on square roots of linear values, which are about as even to the
//! eye as sRGB and cheap.

use super::canvas::Canvas;
use super::facts::Style;
use super::maths::{self, lerp, smoothstep, srgb};
use super::noise::Noise;
use crate::random::Random;
use glam::Vec3;

/// Redraws a picture in a style.
pub(super) fn apply(style: Style, canvas: &mut Canvas, noise: &Noise, random: &mut Random) {
    if matches!(style, Style::Render | Style::Icon(_) | Style::Photo) {
        return;
    }
    for pixel in &mut canvas.pixels {
        *pixel = pixel.clamp(Vec3::ZERO, Vec3::splat(1.2)).map(f32::sqrt);
    }
    match style {
        Style::Render | Style::Icon(_) | Style::Photo => {}
        Style::OilPainting => oil(canvas, random),
        Style::Watercolour => watercolour(canvas, noise, random),
        Style::PixelArt => pixel_art(canvas, random),
        Style::LineArt => line_art(canvas, random),
        Style::Poster => poster(canvas),
    }
    for pixel in &mut canvas.pixels {
        *pixel = *pixel * *pixel;
    }
}

fn luma(c: Vec3) -> f32 {
    0.30 * c.x + 0.59 * c.y + 0.11 * c.z
}

/// Gaussian-like blur: two box blurs each way.
fn blur(values: &[f32], width: usize, height: usize, radius: usize) -> Vec<f32> {
    let mut now = values.to_vec();
    let mut next = vec![0.0f32; values.len()];
    let share = 1.0 / (2 * radius + 1) as f32;
    for _ in 0..2 {
        for (source, target) in now.chunks_exact(width).zip(next.chunks_exact_mut(width)) {
            let mut sum = source[0] * (radius + 1) as f32 + source[1..=radius.min(width - 1)].iter().sum::<f32>();
            for x in 0..width {
                target[x] = sum * share;
                sum += source[(x + radius + 1).min(width - 1)] - source[x.saturating_sub(radius)];
            }
        }
        let mut sums: Vec<f32> = next[..width].iter().map(|v| v * (radius + 1) as f32).collect();
        for y in 1..=radius.min(height - 1) {
            for (sum, v) in sums.iter_mut().zip(&next[y * width..]) {
                *sum += v;
            }
        }
        for y in 0..height {
            let enter = (y + radius + 1).min(height - 1) * width;
            let leave = y.saturating_sub(radius) * width;
            for x in 0..width {
                now[y * width + x] = sums[x] * share;
                sums[x] += next[enter + x] - next[leave + x];
            }
        }
    }
    now
}

/// Strokes across the gradient, from broad to fine, each in the colour under its middle.
fn oil(canvas: &mut Canvas, random: &mut Random) {
    let (w, h) = (canvas.width, canvas.height);
    let source = canvas.clone();
    let grey: Vec<f32> = source.pixels.iter().map(|c| luma(*c)).collect();
    let smooth = blur(&grey, w, h, 2);
    let unit = ((w * h) as f32).sqrt() / 256.0;
    for pixel in &mut canvas.pixels {
        *pixel = Vec3::new(0.55, 0.48, 0.40);
    }
    let at = |x: usize, y: usize| smooth[y * w + x];
    for (radius, long, cell, detail) in [
        (5.0f32, 20.0f32, 5.0f32, 0.0f32),
        (2.8, 13.0, 3.4, 0.0),
        (1.5, 8.0, 2.6, 0.018),
    ] {
        let (radius, long, cell) = (radius * unit, long * unit, cell * unit);
        let (cols, rows) = ((w as f32 / cell) as usize + 1, (h as f32 / cell) as usize + 1);
        let count = cols * rows;
        for k in 0..count {
            // A stride that meets every cell once in scattered order.
            let place = (k * 7919) % count;
            let x = ((place % cols) as f32 + random.unit()) * cell;
            let y = ((place / cols) as f32 + random.unit()) * cell;
            let (xi, yi) = ((x as usize).clamp(2, w - 3), (y as usize).clamp(2, h - 3));
            let gx = at(xi + 2, yi) - at(xi - 2, yi);
            let gy = at(xi, yi + 2) - at(xi, yi - 2);
            let strength = (gx * gx + gy * gy).sqrt();
            if strength < detail {
                continue;
            }
            let (dx, dy) = if strength > 0.012 {
                (-gy / strength, gx / strength)
            } else {
                (0.94, 0.34 * (random.unit() - 0.5))
            };
            let colour = source.pixels[yi * w + xi] + Vec3::splat(random.range(-0.035, 0.035));
            let long = long * random.range(0.6, 1.1) * if detail > 0.0 { 0.7 } else { 1.0 };
            stroke(canvas, x, y, (dx, dy), radius, long, colour);
        }
    }
}

/// One brush stroke with bristles and a lit ridge.
fn stroke(canvas: &mut Canvas, x: f32, y: f32, (dx, dy): (f32, f32), radius: f32, long: f32, colour: Vec3) {
    let half = long * 0.5;
    let (ex, ey) = (dx.abs() * half + radius, dy.abs() * half + radius);
    let (w, h) = (canvas.width, canvas.height);
    let (x0, x1) = ((x - ex).max(0.0) as usize, ((x + ex + 1.0).max(0.0) as usize).min(w));
    let (y0, y1) = ((y - ey).max(0.0) as usize, ((y + ey + 1.0).max(0.0) as usize).min(h));
    for py in y0..y1 {
        for px in x0..x1 {
            let (rx, ry) = (px as f32 + 0.5 - x, py as f32 + 0.5 - y);
            let along = rx * dx + ry * dy;
            let across = (-rx * dy + ry * dx) / radius;
            let end = ((along.abs() - half).max(0.0)) / radius;
            let d = across * across + end * end;
            if d < 1.0 {
                let cover = ((1.0 - d) * 2.2).min(1.0) * 0.9;
                let ridge = across * 0.05;
                let pixel = &mut canvas.pixels[py * w + px];
                *pixel += (colour + Vec3::splat(ridge) - *pixel) * cover;
            }
        }
    }
}

/// Kuwahara: the mean of the calmest of four neighbourhoods; then paper, and pigment at the edges.
fn watercolour(canvas: &mut Canvas, noise: &Noise, random: &mut Random) {
    let (w, h) = (canvas.width, canvas.height);
    let seed = random.range(0.0, 200.0);
    // The paint runs a little.
    let source = canvas.clone();
    for y in 0..h {
        for x in 0..w {
            let nx = noise.value(x as f32 * 0.11 + seed, y as f32 * 0.11) - 0.5;
            let ny = noise.value(x as f32 * 0.11, y as f32 * 0.11 + seed) - 0.5;
            let sx = (x as f32 + nx * 5.0).clamp(0.0, (w - 1) as f32) as usize;
            let sy = (y as f32 + ny * 5.0).clamp(0.0, (h - 1) as f32) as usize;
            canvas.pixels[y * w + x] = source.pixels[sy * w + sx];
        }
    }
    kuwahara(canvas, 3);
    let grey: Vec<f32> = canvas.pixels.iter().map(|c| luma(*c)).collect();
    let wide = blur(&grey, w, h, 4);
    for y in 0..h {
        for x in 0..w {
            let i = y * w + x;
            let wash = noise.fbm(x as f32 * 0.018 + seed, y as f32 * 0.018, 4) - 0.5;
            let grain = noise.value(x as f32 * 0.7, y as f32 * 0.7 + seed) - 0.5;
            let edge = (wide[i] - grey[i]).max(0.0);
            let c = canvas.pixels[i];
            let tint = luma(c);
            // Thin paint on white paper: lighter, a little less even.
            let paper = Vec3::new(0.985, 0.975, 0.955);
            let body = c + (c - Vec3::splat(tint)) * 0.25;
            let thin = (0.20 + 0.55 * wash + 0.10 * grain).clamp(0.0, 0.6);
            canvas.pixels[i] = body.lerp(paper, thin) * (1.0 - edge * 0.9);
        }
    }
    // An uneven white margin, as on a sheet that was not painted to the rim.
    for y in 0..h {
        for x in 0..w {
            let rim = (x.min(w - 1 - x)).min(y.min(h - 1 - y)) as f32;
            let ragged = 2.0 + 9.0 * noise.fbm(x as f32 * 0.05 + seed, y as f32 * 0.05, 3);
            let white = smoothstep(ragged, ragged - 2.5, rim);
            let i = y * w + x;
            canvas.pixels[i] = canvas.pixels[i].lerp(Vec3::new(0.985, 0.978, 0.962), white);
        }
    }
}

/// In place, with quadrants of `radius` + 1 pixels a side, through summed-area tables.
fn kuwahara(canvas: &mut Canvas, radius: usize) {
    let (w, h) = (canvas.width, canvas.height);
    // Sums of red, green, blue and squared luma over the rectangle from the corner.
    let mut sums = vec![[0.0f64; 4]; (w + 1) * (h + 1)];
    for y in 0..h {
        let mut row = [0.0f64; 4];
        for x in 0..w {
            let c = canvas.pixels[y * w + x];
            let l = luma(c);
            for (total, v) in row.iter_mut().zip([c.x, c.y, c.z, l * l]) {
                *total += f64::from(v);
            }
            let above = sums[y * (w + 1) + x + 1];
            sums[(y + 1) * (w + 1) + x + 1] = std::array::from_fn(|k| above[k] + row[k]);
        }
    }
    let over = |x0: usize, y0: usize, x1: usize, y1: usize| -> (Vec3, f32) {
        let area = ((x1 - x0) * (y1 - y0)) as f64;
        let at = |x: usize, y: usize| &sums[y * (w + 1) + x];
        let (a, b, c, d) = (at(x0, y0), at(x1, y0), at(x0, y1), at(x1, y1));
        let s: [f32; 4] = std::array::from_fn(|k| ((d[k] - b[k] - c[k] + a[k]) / area) as f32);
        let mean = Vec3::new(s[0], s[1], s[2]);
        let l = luma(mean);
        (mean, s[3] - l * l)
    };
    for y in 0..h {
        for x in 0..w {
            let (l, r) = (x.saturating_sub(radius), (x + radius + 1).min(w));
            let (t, b) = (y.saturating_sub(radius), (y + radius + 1).min(h));
            let best = [
                over(l, t, x + 1, y + 1),
                over(x, t, r, y + 1),
                over(l, y, x + 1, b),
                over(x, y, r, b),
            ]
            .into_iter()
            .min_by(|a, b| a.1.total_cmp(&b.1));
            if let Some((mean, _)) = best {
                canvas.pixels[y * w + x] = mean;
            }
        }
    }
}

/// Large square pixels in a small palette, dithered a little.
fn pixel_art(canvas: &mut Canvas, random: &mut Random) {
    let (w, h) = (canvas.width, canvas.height);
    let cell = [3, 4, 4, 5][random.below(4)];
    let levels = [5.0f32, 6.0, 7.0][random.below(3)];
    for cy in (0..h).step_by(cell) {
        for cx in (0..w).step_by(cell) {
            let (x1, y1) = ((cx + cell).min(w), (cy + cell).min(h));
            let mut sum = Vec3::ZERO;
            for y in cy..y1 {
                for x in cx..x1 {
                    sum += canvas.pixels[y * w + x];
                }
            }
            let mut c = sum / ((x1 - cx) * (y1 - cy)) as f32;
            let l = luma(c);
            c = (Vec3::splat(l) + (c - Vec3::splat(l)) * 1.25).clamp(Vec3::ZERO, Vec3::ONE);
            let checker = if ((cx / cell) + (cy / cell)) % 2 == 0 {
                0.05
            } else {
                -0.05
            };
            let q = c.map(|v| maths::floor(v * levels + 0.5 + checker) / levels);
            let q = q.clamp(Vec3::ZERO, Vec3::ONE);
            for y in cy..y1 {
                canvas.pixels[y * w + cx..y * w + x1].fill(q);
            }
        }
    }
}

/// Dark lines where two blurs differ, and light hatching in the darks, on paper.
fn line_art(canvas: &mut Canvas, random: &mut Random) {
    let (w, h) = (canvas.width, canvas.height);
    let grey: Vec<f32> = canvas.pixels.iter().map(|c| luma(*c)).collect();
    // Edges of colour count too: a red thing on green ground of one lightness.
    let hue: Vec<f32> = canvas.pixels.iter().map(|c| (c.x - c.z) * 0.6 - c.y * 0.3).collect();
    let (g1, g2) = (blur(&grey, w, h, 1), blur(&grey, w, h, 2));
    let (h1, h2) = (blur(&hue, w, h, 1), blur(&hue, w, h, 2));
    let paper = srgb(250, 248, 242).map(f32::sqrt);
    let ink = [
        Vec3::splat(0.10),
        Vec3::new(0.12, 0.12, 0.22),
        Vec3::new(0.22, 0.14, 0.10),
    ][random.below(3)];
    let hatched = random.chance(0.5);
    for y in 0..h {
        for x in 0..w {
            let i = y * w + x;
            let edge = (g2[i] - g1[i]).max(0.0) + 0.7 * (h2[i] - h1[i]).abs();
            let mut line = smoothstep(0.008, 0.030, edge);
            if hatched {
                let dark = 1.0 - g2[i];
                let stripe = (x + y) % 5 == 0;
                let cross = (x + 2 * h - y) % 5 == 0;
                if (stripe && dark > 0.62) || (cross && dark > 0.80) {
                    line = line.max(0.5);
                }
            }
            canvas.pixels[i] = paper.lerp(ink, line * 0.95);
        }
    }
}

/// Smooth flat areas of few tones.
fn poster(canvas: &mut Canvas) {
    kuwahara(canvas, 3);
    kuwahara(canvas, 2);
    for pixel in &mut canvas.pixels {
        let l = luma(*pixel);
        let steps = 6.0;
        let stepped = maths::floor(l * steps + 0.5) / steps;
        let target = lerp(l, stepped, 0.85);
        let c = *pixel * (target / l.max(0.02));
        let grey = Vec3::splat(target);
        *pixel = (grey + (c - grey) * 1.3).clamp(Vec3::ZERO, Vec3::ONE);
    }
}
