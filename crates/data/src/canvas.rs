//! Sprites on a canvas: where they go, and how they are drawn there.

use crate::random::Random;
use crate::render::SIZE_PX;

/// Pixels of a sample's side.
pub(super) const SIDE_PX: usize = SIZE_PX as usize;

/// Where a sprite goes: its scale, and the shift of its centre from the canvas' centre in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Placement {
    pub scale: f32,
    pub x: f32,
    pub y: f32,
}

impl Placement {
    pub const CENTRED: Placement = Placement {
        scale: 1.0,
        x: 0.0,
        y: 0.0,
    };
}

/// This share of the objects is a little smaller and shifted, never cut; the others stay centred at full size.
pub(super) fn jitter(share: f32, random: &mut Random) -> Placement {
    if !random.chance(share) {
        return Placement::CENTRED;
    }
    let scale = random.range(0.82, 1.0);
    let room = (SIDE_PX as f32 * (1.0 - scale) / 2.0).min(6.0) + 3.0;
    Placement {
        scale,
        x: random.range(-room, room),
        y: random.range(-room, room),
    }
}

/// A canvas [128, 128, 3] of one colour.
pub(super) fn canvas(rgb: [u8; 3]) -> Vec<u8> {
    rgb.repeat(SIDE_PX * SIDE_PX)
}

/// Composites a straight-alpha sprite on a canvas, with bilinear filtering of premultiplied values.
pub(super) fn draw(canvas: &mut [u8], sprite: &[u8], place: &Placement, flip: bool) {
    if *place == Placement::CENTRED && !flip {
        draw_unmoved(canvas, sprite);
        return;
    }
    let half = SIDE_PX as f32 / 2.0;
    let reach = half * place.scale;
    let limits = |shift: f32| {
        let low = (half + shift - reach).floor().clamp(0.0, SIDE_PX as f32) as usize;
        let high = (half + shift + reach).ceil().clamp(0.0, SIDE_PX as f32) as usize;
        low..high
    };
    let source = |at: usize, shift: f32| (at as f32 + 0.5 - half - shift) / place.scale + half - 0.5;
    for y in limits(place.y) {
        let v = source(y, place.y);
        for x in limits(place.x) {
            let mut u = source(x, place.x);
            if flip {
                u = SIDE_PX as f32 - 1.0 - u;
            }
            let [r, g, b, a] = bilinear(sprite, u, v);
            if a > 0.0 {
                let pixel = &mut canvas[(y * SIDE_PX + x) * 3..][..3];
                for (out, premultiplied) in pixel.iter_mut().zip([r, g, b]) {
                    let value = premultiplied + f32::from(*out) * (1.0 - a);
                    *out = (value + 0.5).clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
}

/// The common case: every pixel stays where it is.
fn draw_unmoved(canvas: &mut [u8], sprite: &[u8]) {
    for (pixel, over) in canvas
        .chunks_exact_mut(3)
        .zip(sprite.chunks_exact(4))
        .filter(|(_, over)| over[3] > 0)
    {
        let alpha = u32::from(over[3]);
        for (out, colour) in pixel.iter_mut().zip(over) {
            *out = ((u32::from(*colour) * alpha + u32::from(*out) * (255 - alpha) + 127) / 255) as u8;
        }
    }
}

/// Premultiplied colour (0 to 255) and alpha (0 to 1) at a fractional position; transparent outside.
fn bilinear(sprite: &[u8], u: f32, v: f32) -> [f32; 4] {
    let (u0, v0) = (u.floor(), v.floor());
    let (fu, fv) = (u - u0, v - v0);
    let mut out = [0.0f32; 4];
    for (dy, wy) in [(0, 1.0 - fv), (1, fv)] {
        for (dx, wx) in [(0, 1.0 - fu), (1, fu)] {
            let (x, y) = (u0 as isize + dx, v0 as isize + dy);
            let weight = wx * wy;
            if weight > 0.0 && (0..SIDE_PX as isize).contains(&x) && (0..SIDE_PX as isize).contains(&y) {
                let pixel = &sprite[(y as usize * SIDE_PX + x as usize) * 4..][..4];
                let alpha = f32::from(pixel[3]) / 255.0 * weight;
                (0..3).for_each(|c| out[c] += f32::from(pixel[c]) * alpha);
                out[3] += alpha;
            }
        }
    }
    out
}
