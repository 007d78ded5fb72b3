//! Scenes: two objects in a relation, or two to four of the same.

use crate::DataError;
use crate::canvas::{Placement, canvas, draw};
use crate::caption;
use crate::colour::{self, Colour};
use crate::composer::{Composer, Sample};
use crate::random::Random;

const NUMBERS: [&str; 3] = ["two", "three", "four"];

/// A relation and where its two objects go (scale, x and y of each, pixels from the centre).
const RELATIONS: [(&str, [Placement; 2]); 6] = [
    ("to the left of", [place(0.5, -31.0, 0.0), place(0.5, 31.0, 0.0)]),
    ("to the right of", [place(0.5, 31.0, 0.0), place(0.5, -31.0, 0.0)]),
    ("next to", [place(0.5, -30.0, 4.0), place(0.5, 30.0, 4.0)]),
    ("above", [place(0.5, 0.0, -31.0), place(0.5, 0.0, 31.0)]),
    ("below", [place(0.5, 0.0, 31.0), place(0.5, 0.0, -31.0)]),
    ("on top of", [place(0.46, 0.0, -28.0), place(0.56, 0.0, 28.0)]),
];

const fn place(scale: f32, x: f32, y: f32) -> Placement {
    Placement { scale, x, y }
}

/// A scene with its exact caption.
pub(super) fn compose(composer: &Composer, random: &mut Random) -> Result<Sample, DataError> {
    if random.chance(0.3) {
        count(composer, random)
    } else {
        relation(composer, random)
    }
}

/// The pixels of a sprite, repainted now and then, and its noun phrase with the colour.
fn actor(composer: &Composer, id: usize, random: &mut Random) -> Result<(Vec<u8>, Option<Colour>), DataError> {
    let sprite = &composer.dataset().sprites[id];
    let mut pixels = composer.dataset().pixels(id)?;
    let colour = (sprite.hue_shiftable && random.chance(composer.options().repaint))
        .then(|| random.pick(&Colour::OBJECTS).copied())
        .flatten();
    if let Some(colour) = colour {
        colour::repaint(&mut pixels, sprite.hue, sprite.luma, colour);
    }
    Ok((pixels, colour))
}

fn finish(caption: String, background: Colour, named: bool) -> String {
    if named {
        let name = background.name();
        format!("{caption} on {} {name} background", caption::indefinite_article(name))
    } else {
        caption
    }
}

fn relation(composer: &Composer, random: &mut Random) -> Result<Sample, DataError> {
    let ids = [composer.draw_sprite(random), composer.draw_sprite(random)];
    let (word, places) = RELATIONS[random.below(RELATIONS.len())];
    let nouns = ids.map(|id| composer.dataset().sprites[id].noun);
    let mut drawn = Vec::with_capacity(2);
    let mut phrases = Vec::with_capacity(2);
    for id in ids {
        let (pixels, colour) = actor(composer, id, random)?;
        let phrase = &composer.dataset().nouns[composer.dataset().sprites[id].noun].phrase;
        phrases.push(colour.map_or_else(|| phrase.clone(), |c| caption::with_adjective(phrase, c.name())));
        drawn.push((pixels, colour));
    }
    let (background, named) = composer.background(&composer.dataset().sprites[ids[0]], drawn[0].1, random);
    let mut rgb = canvas(background.background());
    // "On top of" overlaps: the upper object is drawn last.
    for ((pixels, _), at) in drawn.iter().zip(places).rev() {
        let shake = Placement {
            x: at.x + random.range(-2.0, 2.0),
            y: at.y + random.range(-2.0, 2.0),
            ..at
        };
        draw(&mut rgb, pixels, &shake, random.chance(composer.options().flip));
    }
    let caption = finish(format!("{} {word} {}", phrases[0], phrases[1]), background, named);
    Ok(Sample {
        rgb,
        caption,
        noun: nouns[0],
    })
}

/// Things that are counted in plain English: "two dogs", not "two french fries" or "two women bowing".
fn is_countable(composer: &Composer, sprite: usize) -> bool {
    let noun = &composer.dataset().nouns[composer.dataset().sprites[sprite].noun];
    let indefinite = noun.phrase.starts_with("a ") || noun.phrase.starts_with("an ");
    indefinite && (noun.core_rank.is_some() || !noun.noun().contains(' '))
}

fn count(composer: &Composer, random: &mut Random) -> Result<Sample, DataError> {
    let Some(id) = (0..32)
        .map(|_| composer.draw_sprite(random))
        .find(|id| is_countable(composer, *id))
    else {
        return relation(composer, random);
    };
    let sprite = &composer.dataset().sprites[id];
    let (pixels, colour) = actor(composer, id, random)?;
    let n = 2 + random.below(NUMBERS.len());
    let (background, named) = composer.background(sprite, colour, random);
    let mut rgb = canvas(background.background());
    let scale = 0.48;
    let spots: &[(f32, f32)] = match n {
        2 => &[(-30.0, 0.0), (30.0, 0.0)],
        3 => &[(-30.0, 29.0), (30.0, 29.0), (0.0, -29.0)],
        _ => &[(-30.0, -30.0), (30.0, -30.0), (-30.0, 30.0), (30.0, 30.0)],
    };
    for (x, y) in spots {
        let at = Placement {
            scale,
            x: x + random.range(-3.0, 3.0),
            y: y + random.range(-3.0, 3.0),
        };
        draw(&mut rgb, &pixels, &at, false);
    }
    let noun = &composer.dataset().nouns[sprite.noun];
    let many = caption::plural(noun.noun());
    let phrase = colour.map_or_else(|| many.clone(), |c| caption::with_adjective(&many, c.name()));
    let caption = finish(format!("{} {phrase}", NUMBERS[n - 2]), background, named);
    Ok(Sample {
        rgb,
        caption,
        noun: sprite.noun,
    })
}
