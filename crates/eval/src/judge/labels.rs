//! What is true of a render, as numbers that a network can be asked for.

use crate::features::{FINE, MAPS_SIDE_PX};
use prima_data::Colour;
use prima_data::world::{Facts, Place, Relation, Sample, Style, Time, Weather, World, everyday};
use std::collections::BTreeMap;

/// How the first of two things lies to the second, as far as a picture shows it: what is next to something is left or right
/// of it.
pub(crate) const SIDES: [Relation; 5] = [
    Relation::LeftOf,
    Relation::RightOf,
    Relation::InFrontOf,
    Relation::Behind,
    Relation::OnTopOf,
];

/// Styles that can be told apart. Glossy icons are 3d renders too, pixel-art tiles pixel art.
pub(crate) const STYLES: [&str; 7] = [
    "3d render",
    "oil painting",
    "watercolour",
    "pixel art",
    "line art",
    "flat poster",
    "flat icon",
];

/// Greatest count of one thing.
pub(crate) const COUNTS: usize = 4;

/// Keys of the places that are not landscapes.
const STAGES: [&str; 8] = [
    "room",
    "wooden table",
    "plain background",
    "grass",
    "sand",
    "snow",
    "wooden floor",
    "stone",
];

/// A cell that shows nothing.
pub(crate) const NOTHING: u8 = 0;
/// A cell that shows a little of something: no lesson.
pub(crate) const UNSURE: u8 = u8::MAX;

/// The answers that a judge can give.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// The everyday nouns, in their list's order.
    pub nouns: Vec<String>,
    /// Keys of places.
    pub places: Vec<String>,
    /// By noun: nouns all of whose models it names as well; a pine tree is a tree.
    pub kinds: Vec<Vec<usize>>,
}

impl Answers {
    pub fn of(world: &World) -> Self {
        let nouns: Vec<String> = everyday().into_iter().map(str::to_owned).collect();
        let called = |word: &str| -> Vec<usize> {
            let models = world.catalogue.models.iter().enumerate();
            let shown = models.filter(|(_, m)| !m.weak && (m.noun == word || m.synonyms.iter().any(|s| s == word)));
            shown.map(|(index, _)| index).collect()
        };
        let models: Vec<Vec<usize>> = nouns.iter().map(|noun| called(noun)).collect();
        let is_kind = |of: usize, kind: usize| {
            kind == of || (!models[kind].is_empty() && models[kind].iter().all(|m| models[of].contains(m)))
        };
        let kinds = (0..nouns.len())
            .map(|of| (0..nouns.len()).filter(|kind| is_kind(of, *kind)).collect())
            .collect();
        let landscapes = Place::LANDSCAPES.iter().map(|place| place.key());
        Self {
            nouns,
            places: landscapes.chain(STAGES).map(str::to_owned).collect(),
            kinds,
        }
    }

    pub(crate) fn noun(&self, word: &str) -> Option<usize> {
        self.nouns.iter().position(|noun| noun == word)
    }

    pub(crate) fn place(&self, key: &str) -> Option<usize> {
        self.places.iter().position(|place| place == key)
    }
}

/// One sort of thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// The everyday noun by which it was asked for.
    pub noun: Option<usize>,
    /// Everyday nouns that are true of it, with shares that sum to one: narrow ones more than wide ones.
    pub names: Vec<(usize, f32)>,
    /// By `Colour::OBJECTS`.
    pub colour: Option<usize>,
    pub painted: bool,
    pub count: usize,
    /// Of the first one, fractions of the picture.
    pub centre: [f32; 2],
}

/// What is true of one render. What is `None` is not asked.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    pub things: Vec<Shown>,
    pub relation: Option<Relation>,
    /// By [`SIDES`].
    pub side: Option<usize>,
    /// Of the only thing, less one.
    pub count: Option<usize>,
    pub place: Option<usize>,
    pub time: Option<usize>,
    pub weather: Option<usize>,
    /// By [`STYLES`].
    pub style: Option<usize>,
    /// `[FINE, FINE]`: [`NOTHING`], [`UNSURE`], or one more than the thing's index.
    pub cells: Vec<u8>,
}

impl Labels {
    /// `models`: how many each noun has.
    pub(crate) fn of(sample: &Sample, answers: &Answers, models: &BTreeMap<&str, usize>) -> Self {
        let facts = &sample.facts;
        let things: Vec<Shown> = facts.things.iter().map(|thing| shown(thing, answers, models)).collect();
        let alone = (things.len() == 1 && !facts.things[0].several).then(|| things[0].count);
        Self {
            relation: facts.relation,
            side: side(facts),
            count: alone
                .filter(|count| (1..=COUNTS).contains(count))
                .map(|count| count - 1),
            place: answers.place(facts.place.key()),
            time: facts.time.and_then(|time| Time::ALL.iter().position(|t| *t == time)),
            weather: facts
                .weather
                .and_then(|weather| Weather::ALL.iter().position(|w| *w == weather)),
            style: style(facts.style),
            cells: cells(sample),
            things,
        }
    }
}

fn shown(thing: &prima_data::world::Thing, answers: &Answers, models: &BTreeMap<&str, usize>) -> Shown {
    let words = std::iter::once(&thing.noun).chain(&thing.synonyms);
    let mut names: Vec<(usize, f32)> = Vec::new();
    for word in words {
        if let Some(noun) = answers.noun(word).filter(|noun| names.iter().all(|(n, _)| n != noun)) {
            names.push((
                noun,
                1.0 / models.get(word.as_str()).copied().unwrap_or(1).max(1) as f32,
            ));
        }
    }
    let sum: f32 = names.iter().map(|(_, share)| share).sum();
    for (_, share) in &mut names {
        *share /= sum;
    }
    Shown {
        noun: answers.noun(&thing.noun),
        names,
        colour: thing.colour.and_then(|c| Colour::OBJECTS.iter().position(|o| *o == c)),
        painted: thing.painted,
        count: thing.count,
        centre: thing.centres().first().copied().unwrap_or([0.5, 0.5]),
    }
}

fn side(facts: &Facts) -> Option<usize> {
    let relation = facts.relation?;
    let seen = match relation {
        Relation::NextTo => {
            let centre = |k: usize| facts.things.get(k)?.centres().first().copied();
            if centre(0)?[0] < centre(1)?[0] {
                Relation::LeftOf
            } else {
                Relation::RightOf
            }
        }
        other => other,
    };
    SIDES.iter().position(|side| *side == seen)
}

/// By [`STYLES`]; none for a photograph.
fn style(style: Style) -> Option<usize> {
    let name = match style {
        Style::Icon("glossy 3d") => "3d render",
        Style::Icon("pixel art") => "pixel art",
        Style::Icon(_) => "flat icon",
        other => other.name(),
    };
    STYLES.iter().position(|known| *known == name)
}

/// Which thing each cell shows.
fn cells(sample: &Sample) -> Vec<u8> {
    let side = MAPS_SIDE_PX / FINE;
    let thing_of = |object: u8| {
        let mut things = sample.facts.things.iter();
        things.position(|thing| thing.objects.contains(&object))
    };
    let count = sample.facts.things.len();
    (0..FINE * FINE)
        .map(|cell| {
            let (top, left) = (cell / FINE * side, cell % FINE * side);
            let mut pixels = vec![0usize; count];
            for y in top..top + side {
                for object in &sample.mask[y * sample.width + left..][..side] {
                    if let Some(thing) = thing_of(*object).filter(|_| *object > 0) {
                        pixels[thing] += 1;
                    }
                }
            }
            let all: usize = pixels.iter().sum();
            let most = (0..count).max_by_key(|k| pixels[*k]);
            match most {
                Some(thing) if pixels[thing] * 5 >= side * side * 2 => thing as u8 + 1,
                _ if all * 12 > side * side => UNSURE,
                _ => NOTHING,
            }
        })
        .collect()
}
