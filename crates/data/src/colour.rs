//! Named colours: their sRGB values, naming the colour of a sprite, and repainting a sprite in a named colour.

/// A colour that captions can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Colour {
    Red,
    Orange,
    Yellow,
    Green,
    Blue,
    Purple,
    Pink,
    Brown,
    Black,
    White,
    Grey,
    LightBlue,
    LightGreen,
    DarkBlue,
    Beige,
}

use Colour::{
    Beige, Black, Blue, Brown, DarkBlue, Green, Grey, LightBlue, LightGreen, Orange, Pink, Purple, Red, White, Yellow,
};

impl Colour {
    /// Every colour a background can have.
    pub const BACKGROUNDS: [Colour; 15] = [
        White, Red, Orange, Yellow, Green, Blue, Purple, Pink, Brown, Black, Grey, LightBlue, LightGreen, DarkBlue,
        Beige,
    ];
    /// Every colour an object is repainted in.
    pub const OBJECTS: [Colour; 11] = [
        Red, Orange, Yellow, Green, Blue, Purple, Pink, Brown, Black, White, Grey,
    ];

    /// The colour's English name, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Red => "red",
            Orange => "orange",
            Yellow => "yellow",
            Green => "green",
            Blue => "blue",
            Purple => "purple",
            Pink => "pink",
            Brown => "brown",
            Black => "black",
            White => "white",
            Grey => "grey",
            LightBlue => "light blue",
            LightGreen => "light green",
            DarkBlue => "dark blue",
            Beige => "beige",
        }
    }

    /// The colour with this English name.
    pub fn from_name(name: &str) -> Option<Colour> {
        Self::BACKGROUNDS.into_iter().find(|colour| colour.name() == name)
    }

    /// sRGB of a background of this colour.
    pub fn background(self) -> [u8; 3] {
        match self {
            Red => [226, 54, 54],
            Orange => [248, 148, 40],
            Yellow => [250, 214, 60],
            Green => [68, 170, 80],
            Blue => [52, 110, 224],
            Purple => [138, 70, 190],
            Pink => [248, 160, 196],
            Brown => [130, 84, 52],
            Black => [16, 16, 18],
            White => [255, 255, 255],
            Grey => [146, 148, 152],
            LightBlue => [166, 212, 246],
            LightGreen => [176, 228, 160],
            DarkBlue => [22, 40, 104],
            Beige => [236, 222, 194],
        }
    }

    /// sRGB, 0 to 1, of the mid-tone of an object repainted in this colour.
    pub fn object(self) -> [f32; 3] {
        let rgb: [u8; 3] = match self {
            Red => [222, 40, 40],
            Orange => [247, 136, 24],
            Yellow => [250, 208, 36],
            Green => [48, 160, 64],
            Blue => [40, 100, 224],
            Purple => [136, 60, 196],
            Pink => [246, 130, 180],
            Brown => [124, 76, 42],
            Black => [40, 40, 44],
            White => [236, 236, 240],
            Grey => [142, 144, 150],
            other => other.background(),
        };
        rgb.map(|v| f32::from(v) / 255.0)
    }
}

/// Hue in degrees, saturation and value of an sRGB colour with components from 0 to 1.
pub fn hsv([r, g, b]: [f32; 3]) -> [f32; 3] {
    let max = r.max(g).max(b);
    let chroma = max - r.min(g).min(b);
    let hue = if chroma <= 0.0 {
        0.0
    } else if max == r {
        60.0 * ((g - b) / chroma).rem_euclid(6.0)
    } else if max == g {
        60.0 * ((b - r) / chroma + 2.0)
    } else {
        60.0 * ((r - g) / chroma + 4.0)
    };
    [hue, if max > 0.0 { chroma / max } else { 0.0 }, max]
}

/// The name an English speaker would most likely give to an sRGB colour (components 0 to 1).
pub fn name_of(rgb: [f32; 3]) -> Colour {
    let [hue, saturation, value] = hsv(rgb);
    if value < 0.2 {
        return Black;
    }
    if saturation < 0.18 || saturation * value < 0.12 {
        return if value > 0.82 {
            White
        } else if value < 0.28 {
            Black
        } else {
            Grey
        };
    }
    match hue {
        h if (14.0..45.0).contains(&h) && value < 0.72 => Brown,
        h if !(14.0..345.0).contains(&h) && saturation < 0.52 && value > 0.7 => Pink,
        h if !(14.0..345.0).contains(&h) => Red,
        h if h < 41.0 => Orange,
        h if h < 66.0 => Yellow,
        h if h < 170.0 => Green,
        h if h < 255.0 => Blue,
        h if h < 300.0 => Purple,
        _ if value > 0.6 => Pink,
        _ => Purple,
    }
}

/// Luma (Rec. 709 weights on sRGB values), 0 to 1.
fn luma([r, g, b]: [f32; 3]) -> f32 {
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

fn rgb_of(pixel: &[u8]) -> [f32; 3] {
    [
        f32::from(pixel[0]) / 255.0,
        f32::from(pixel[1]) / 255.0,
        f32::from(pixel[2]) / 255.0,
    ]
}

fn chroma([r, g, b]: [f32; 3]) -> f32 {
    r.max(g).max(b) - r.min(g).min(b)
}

/// Distance of two hues, 0 to 180 degrees.
fn hue_distance(a: f32, b: f32) -> f32 {
    let d = (a - b).rem_euclid(360.0);
    d.min(360.0 - d)
}

/// What the colours of a sprite are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Palette {
    /// Share of the opaque pixels that are saturated, 0 to 1.
    pub saturated: f32,
    /// Hue of the main saturated cluster, degrees.
    pub hue: f32,
    /// Share of the saturated pixels that lie within [`HUE_REACH`] of `hue`.
    pub share: f32,
    /// Mean luma of the main cluster, 0 to 1.
    pub luma: f32,
    /// The one colour that most of the object has, if there is one.
    pub main: Option<Colour>,
    /// Mean sRGB of all opaque pixels, 0 to 1.
    pub mean: [f32; 3],
}

/// Half width of a hue cluster, degrees.
pub const HUE_REACH: f32 = 42.0;
/// A pixel counts as saturated above this chroma.
const SATURATED: f32 = 0.25;
/// Share of pixels that one colour name must have to be the object's colour.
const MAIN_SHARE: f32 = 0.6;

impl Palette {
    /// Measures straight-alpha RGBA pixels.
    pub fn of(rgba: &[u8]) -> Palette {
        let mut bins = [0.0f32; 36];
        let (mut opaque, mut saturated) = (0.0f32, 0.0f32);
        let mut mean = [0.0f32; 3];
        let mut names = [0u32; 15];
        for pixel in rgba.chunks_exact(4).filter(|p| p[3] > 200) {
            let rgb = rgb_of(pixel);
            opaque += 1.0;
            mean.iter_mut().zip(rgb).for_each(|(m, v)| *m += v);
            names[name_of(rgb) as usize] += 1;
            if chroma(rgb) > SATURATED {
                saturated += 1.0;
                bins[(hsv(rgb)[0] / 10.0) as usize % 36] += chroma(rgb);
            }
        }
        let opaque = opaque.max(1.0);
        // The nearer bins weigh more, so that a single hue is found at its own place.
        let around = |i: usize| {
            (0..9usize)
                .map(|k| (5 - k.abs_diff(4)) as f32 * bins[(i + 32 + k) % 36])
                .sum::<f32>()
        };
        let peak = (0..36).max_by(|a, b| around(*a).total_cmp(&around(*b))).unwrap_or(0);
        let hue = mean_hue(rgba, peak as f32 * 10.0 + 5.0);
        let (mut cluster, mut cluster_luma) = (0.0f32, 0.0f32);
        for pixel in rgba.chunks_exact(4).filter(|p| p[3] > 200) {
            let rgb = rgb_of(pixel);
            if chroma(rgb) > SATURATED && hue_distance(hsv(rgb)[0], hue) < HUE_REACH {
                cluster += 1.0;
                cluster_luma += luma(rgb);
            }
        }
        let main = names.iter().enumerate().max_by_key(|(_, n)| **n).and_then(|(i, n)| {
            let colour = Colour::OBJECTS.into_iter().find(|c| *c as usize == i)?;
            (*n as f32 > MAIN_SHARE * opaque).then_some(colour)
        });
        Palette {
            saturated: saturated / opaque,
            hue,
            share: cluster / saturated.max(1.0),
            luma: cluster_luma / cluster.max(1.0),
            main,
            mean: mean.map(|m| m / opaque),
        }
    }

    /// Whether repainting changes the object's colour visibly: one hue dominates, and enough of the object has it.
    pub fn is_hue_shiftable(&self) -> bool {
        self.saturated * self.share >= 0.25 && self.share >= 0.55
    }
}

/// Circular mean of the hues of the saturated pixels near `centre`, degrees.
fn mean_hue(rgba: &[u8], centre: f32) -> f32 {
    let (mut sum, mut weight) = (0.0f32, 0.0f32);
    for pixel in rgba.chunks_exact(4).filter(|p| p[3] > 200) {
        let rgb = rgb_of(pixel);
        let offset = (hsv(rgb)[0] - centre + 540.0).rem_euclid(360.0) - 180.0;
        if chroma(rgb) > SATURATED && offset.abs() < HUE_REACH {
            sum += offset * chroma(rgb);
            weight += chroma(rgb);
        }
    }
    (centre + sum / weight.max(1e-6)).rem_euclid(360.0)
}

fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Repaints the main hue cluster of straight-alpha RGBA pixels in `colour`, keeping their shading: a pixel as light as
/// the cluster's mean becomes exactly `colour.object()`, darker ones its shades, lighter ones its tints.
/// Details of other hues (eyes, windows) keep their colour.
pub fn repaint(rgba: &mut [u8], hue: f32, cluster_luma: f32, colour: Colour) {
    let target = colour.object();
    let base = cluster_luma.clamp(0.08, 0.92);
    for pixel in rgba.chunks_exact_mut(4).filter(|p| p[3] > 0) {
        let rgb = rgb_of(pixel);
        let near = 1.0 - smoothstep(HUE_REACH, HUE_REACH + 18.0, hue_distance(hsv(rgb)[0], hue));
        let weight = near * smoothstep(0.06, 0.2, chroma(rgb));
        if weight == 0.0 {
            continue;
        }
        let light = luma(rgb);
        for c in 0..3 {
            let painted = if light <= base {
                // The square root softens shading, so that a dark half still reads as the colour and not as black.
                target[c] * (light / base).sqrt()
            } else {
                target[c] + (1.0 - target[c]) * 0.7 * (light - base) / (1.0 - base)
            };
            let mixed = rgb[c] + (painted - rgb[c]) * weight;
            pixel[c] = (mixed * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
}
