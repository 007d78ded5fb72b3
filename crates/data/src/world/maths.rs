//! Elementary functions made of +, *, / and bit patterns alone, so that pictures do not depend on a platform's maths
//! library. Relative errors are below 1e-5, far under a grey level.

use glam::Vec3;

/// 2^x.
pub fn exp2(x: f32) -> f32 {
    let x = x.clamp(-126.0, 126.0);
    let whole = floor(x);
    let f = x - whole;
    let p = 1.0
        + f * (std::f32::consts::LN_2
            + f * (0.240_226_5 + f * (0.055_504_1 + f * (0.009_618_1 + f * (0.001_333_4 + f * 0.000_154_0)))));
    f32::from_bits(((whole as i32 + 127) as u32) << 23) * p
}

/// e^x.
pub fn exp(x: f32) -> f32 {
    exp2(x * std::f32::consts::LOG2_E)
}

/// log2 of a positive number.
pub fn log2(x: f32) -> f32 {
    let bits = x.max(1e-30).to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let m = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    // ln((1+s)/(1-s)) = 2 (s + s^3/3 + ...), with s = (m-1)/(m+1) below 1/3.
    let s = (m - 1.0) / (m + 1.0);
    let t = s * s;
    let series = s * (1.0 + t * (1.0 / 3.0 + t * (0.2 + t * (1.0 / 7.0 + t * (1.0 / 9.0 + t / 11.0)))));
    exponent as f32 + 2.0 * std::f32::consts::LOG2_E * series
}

/// x^p of x >= 0; 0 for x = 0.
pub fn powf(x: f32, p: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { exp2(p * log2(x)) }
}

/// The largest whole number that is not above x, without the call that `f32::floor` is on older x86-64.
#[inline]
pub fn floor(x: f32) -> f32 {
    let t = x as i32 as f32;
    if t > x { t - 1.0 } else { t }
}

/// Sine, x in radians.
pub fn sin(x: f32) -> f32 {
    use std::f32::consts::{PI, TAU};
    let mut r = x - TAU * floor(x / TAU + 0.5);
    if r > PI / 2.0 {
        r = PI - r;
    } else if r < -PI / 2.0 {
        r = -PI - r;
    }
    let t = r * r;
    r * (1.0 + t * (-1.0 / 6.0 + t * (1.0 / 120.0 + t * (-1.0 / 5040.0 + t / 362_880.0))))
}

/// Cosine, x in radians.
pub fn cos(x: f32) -> f32 {
    sin(x + std::f32::consts::FRAC_PI_2)
}

/// 0 below `low`, 1 above `high`, smooth between.
#[inline]
pub fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[inline]
pub fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// Linear from an sRGB component, 0 to 1.
pub fn decode(v: f32) -> f32 {
    if v <= 0.04045 {
        v / 12.92
    } else {
        powf((v + 0.055) / 1.055, 2.4)
    }
}

/// sRGB from a linear component, 0 to 1.
pub fn encode(v: f32) -> f32 {
    if v <= 0.003_130_8 {
        v * 12.92
    } else {
        1.055 * powf(v, 1.0 / 2.4) - 0.055
    }
}

/// A linear colour from sRGB bytes, as a painter mixes them.
pub fn srgb(r: u8, g: u8, b: u8) -> Vec3 {
    Vec3::new(
        decode(f32::from(r) / 255.0),
        decode(f32::from(g) / 255.0),
        decode(f32::from(b) / 255.0),
    )
}

/// Rec. 709 luminance of a linear colour.
#[inline]
pub fn luminance(c: Vec3) -> f32 {
    0.2126 * c.x + 0.7152 * c.y + 0.0722 * c.z
}

/// Moves a colour away from (above 1) or towards (below 1) its own grey.
pub fn saturate(c: Vec3, amount: f32) -> Vec3 {
    let grey = Vec3::splat(luminance(c));
    (grey + (c - grey) * amount).max(Vec3::ZERO)
}
