//! Contact sheets with words beneath the pictures, for judging by eye.

use super::Judged;
use crate::judge::{Asked, held_out};
use crate::{FeatureNet, Judge};
use embedded_graphics::mono_font::iso_8859_1::{FONT_5X8, FONT_7X13};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text};
use prima_data::world::World;
use prima_picture::{Picture, contact_sheet};
use std::convert::Infallible;

const GAP_PX: usize = 8;
/// Side of a picture on the sheet of all questions.
const SMALL_PX: usize = 128;
const SMALL_COLUMNS: usize = 16;
const COLUMNS: usize = 10;
const BLACK: Rgb888 = Rgb888::new(20, 20, 20);
const RED: Rgb888 = Rgb888::new(200, 20, 20);

/// What was asked and, in red where it is wrong, what the judge saw.
pub fn sheet(judged: &[Judged]) -> Picture {
    let cells: Vec<Picture> = judged
        .iter()
        .map(|one| {
            let small = one.picture.resized(SMALL_PX, SMALL_PX);
            let saw = (one.saw.join(", "), if one.right { BLACK } else { RED });
            written(&small, &[(one.prompt.clone(), BLACK), saw], &FONT_5X8, 5)
        })
        .collect();
    contact_sheet(&cells, SMALL_COLUMNS, GAP_PX)
}

/// Held-out renders that a judge got wrong: what is true, and what it saw.
pub fn mistakes(judge: &Judge, net: &FeatureNet, world: &World, wrong: &[(usize, Asked)]) -> Picture {
    let judged: Vec<Judged> = wrong
        .iter()
        .map(|(number, asked)| {
            let picture = held_out(world, judge.answers(), *number);
            let saw = judge.answer(&judge.look(net, &picture), asked);
            Judged {
                picture,
                prompt: judge.right_answer(asked),
                saw: vec![saw],
                right: false,
            }
        })
        .collect();
    sheet(&judged)
}

/// Each picture with its prompt beneath it.
pub fn prompt_sheet(pictures: &[(String, Picture)]) -> Picture {
    let cells: Vec<Picture> = pictures
        .iter()
        .map(|(prompt, picture)| captioned(picture, prompt))
        .collect();
    contact_sheet(&cells, COLUMNS, GAP_PX)
}

/// A picture with up to three lines of text beneath it.
pub fn captioned(picture: &Picture, text: &str) -> Picture {
    written(picture, &[(text.to_owned(), BLACK)], &FONT_7X13, 3)
}

/// A picture with paragraphs beneath it, in `lines` lines at most.
fn written(picture: &Picture, paragraphs: &[(String, Rgb888)], font: &MonoFont, lines: usize) -> Picture {
    let (wide, tall) = (font.character_size.width as usize, font.character_size.height as usize);
    let mut page = Picture {
        width: picture.width,
        height: picture.height + lines * tall + 2,
        rgb: picture.rgb.clone(),
    };
    page.rgb.resize(page.width * page.height * 3, 255);
    let broken = paragraphs.iter().flat_map(|(text, colour)| {
        let lines = wrapped(text, (picture.width / wide).max(1));
        lines.into_iter().map(|line| (line, *colour))
    });
    let broken: Vec<(String, Rgb888)> = broken.take(lines).collect();
    for (i, (line, colour)) in broken.iter().enumerate() {
        let at = Point::new(0, (picture.height + 2 + i * tall) as i32);
        let style = MonoTextStyle::new(font, *colour);
        let Ok(_) = Text::with_baseline(line, at, style, Baseline::Top).draw(&mut Page(&mut page));
    }
    page
}

/// Lines of at most `columns` characters, broken between words where there are any.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for piece in letters.chunks(columns) {
            let piece: String = piece.iter().collect();
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + piece.chars().count() <= columns => {
                    line.push(' ');
                    line.push_str(&piece);
                }
                _ => lines.push(piece),
            }
        }
    }
    lines
}

/// A picture that text is drawn into.
struct Page<'a>(&'a mut Picture);

impl OriginDimensions for Page<'_> {
    fn size(&self) -> Size {
        Size::new(self.0.width as u32, self.0.height as u32)
    }
}

impl DrawTarget for Page<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        let (width, height) = (self.0.width as i32, self.0.height as i32);
        for Pixel(at, colour) in pixels {
            if (0..width).contains(&at.x) && (0..height).contains(&at.y) {
                let start = (at.y * width + at.x) as usize * 3;
                self.0.rgb[start..start + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_long_words_break_anywhere() {
        assert_eq!(wrapped("a red car on a beach", 9), ["a red car", "on a", "beach"]);
        assert_eq!(wrapped("abcdefgh", 3), ["abc", "def", "gh"]);
    }

    #[test]
    fn the_words_stand_beneath_the_picture_which_stays_as_it_is() {
        let picture = Picture {
            width: 70,
            height: 10,
            rgb: vec![7; 70 * 10 * 3],
        };
        let page = captioned(&picture, "a red car");
        assert_eq!(page.rgb[..picture.rgb.len()], picture.rgb[..]);
        let ink = page.rgb[picture.rgb.len()..].chunks(3).filter(|p| p[0] < 128).count();
        assert!((50..400).contains(&ink), "{ink} pixels of ink");
    }
}
