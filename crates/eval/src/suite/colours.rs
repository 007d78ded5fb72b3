//! Is the object in the colour that was asked for? Saturated pixels of the picture vote by hue;
//! prompts leave the background white, so what is saturated is the object.

use prima_picture::Picture;

/// The hues a prompt can ask for, with their range in degrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hue {
    Red,
    Orange,
    Yellow,
    Green,
    Blue,
    Purple,
    Pink,
}

impl Hue {
    pub const ALL: [Self; 7] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::Purple,
        Self::Pink,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Purple => "purple",
            Self::Pink => "pink",
        }
    }

    /// The hue of an sRGB pixel; `None` where it is too grey, dark or pale to have one.
    pub fn of_pixel(rgb: [u8; 3]) -> Option<Self> {
        let [r, g, b] = rgb.map(|v| f32::from(v) / 255.0);
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        let chroma = max - min;
        if chroma < 0.2 || max < 0.25 {
            return None;
        }
        let degrees = 60.0
            * if max == r {
                ((g - b) / chroma).rem_euclid(6.0)
            } else if max == g {
                (b - r) / chroma + 2.0
            } else {
                (r - g) / chroma + 4.0
            };
        let pale = chroma / max < 0.55 && max > 0.7;
        Some(match degrees {
            h if !(14.0..345.0).contains(&h) => {
                if pale {
                    Self::Pink
                } else {
                    Self::Red
                }
            }
            h if h < 41.0 => Self::Orange,
            h if h < 66.0 => Self::Yellow,
            h if h < 170.0 => Self::Green,
            h if h < 255.0 => Self::Blue,
            h if h < 300.0 => Self::Purple,
            _ => Self::Pink,
        })
    }
}

/// The hue most of the picture's saturated pixels have; `None` where under 1 % have any.
pub fn main_hue(picture: &Picture) -> Option<Hue> {
    let mut votes = [0usize; Hue::ALL.len()];
    for pixel in picture.rgb.as_chunks::<3>().0 {
        if let Some(hue) = Hue::of_pixel(*pixel) {
            votes[hue as usize] += 1;
        }
    }
    if votes.iter().sum::<usize>() * 100 < picture.width * picture.height {
        return None;
    }
    Hue::ALL.into_iter().max_by_key(|hue| votes[*hue as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pure_colours_have_their_names() {
        for (rgb, name) in [
            ([220, 30, 30], "red"),
            ([245, 130, 20], "orange"),
            ([250, 220, 40], "yellow"),
            ([40, 170, 60], "green"),
            ([40, 90, 220], "blue"),
            ([130, 50, 190], "purple"),
            ([245, 120, 190], "pink"),
        ] {
            assert_eq!(Hue::of_pixel(rgb).map(Hue::name), Some(name));
        }
        assert_eq!(Hue::of_pixel([200, 200, 205]), None);
    }

    #[test]
    fn the_object_decides_not_the_white_around_it() {
        let mut rgb = vec![255; 100 * 3];
        rgb[..30].copy_from_slice(&[40, 90, 220].repeat(10));
        assert_eq!(
            main_hue(&Picture {
                width: 10,
                height: 10,
                rgb
            }),
            Some(Hue::Blue)
        );
        assert_eq!(
            main_hue(&Picture {
                width: 10,
                height: 10,
                rgb: vec![255; 300]
            }),
            None
        );
    }
}
