//! What a model is asked to paint. Every list was fixed before there was a model to judge, and is not changed to suit one.

use crate::judge::{Answers, Asked};
use prima_data::Colour;
use prima_data::caption::with_adjective;
use prima_data::world::catalogue::Tint;
use prima_data::world::{Catalogue, Relation, Time, is_counted, plural, synonyms, with_article};
use std::collections::BTreeMap;

/// One thing to paint, and what is then looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    pub text: String,
    /// A row of the report, and the question.
    pub asked: Vec<(String, Asked)>,
    /// The everyday noun's number where the text is its name in another language: English is judged on the same.
    pub named: Option<usize>,
}

/// Nouns that ask for every colour, and those that are counted.
const COLOURED_NOUNS: usize = 15;
const COUNTED_NOUNS: usize = 40;

/// The row of single objects.
pub const SINGLE: &str = "single objects";

/// Two nouns that stand side by side or one before the other.
const PAIRS: [(&str, &str); 10] = [
    ("dog", "cat"),
    ("horse", "cow"),
    ("tree", "house"),
    ("car", "bicycle"),
    ("chair", "desk lamp"),
    ("apple", "bottle"),
    ("robot", "mushroom"),
    ("sheep", "barrel"),
    ("cup", "teapot"),
    ("fire hydrant", "bench"),
];

/// A noun and what it stands on.
const STACKED: [(&str, &str); 10] = [
    ("cat", "table"),
    ("apple", "barrel"),
    ("desk lamp", "table"),
    ("teapot", "stool"),
    ("frog", "box"),
    ("book", "bench"),
    ("chick", "washing machine"),
    ("cake", "table"),
    ("pumpkin", "box"),
    ("microwave", "refrigerator"),
];

/// Where a thing may be: the words, and the place's key.
const SCENES: [(&str, &str, bool); 14] = [
    ("on a beach", "beach", true),
    ("in a forest", "forest", true),
    ("in the desert", "desert", true),
    ("in the snow", "snowy mountains", true),
    ("by a mountain lake", "mountain lake", true),
    ("in a meadow", "hills", true),
    ("in a field of flowers", "field of flowers", true),
    ("in front of a city skyline", "city skyline", true),
    ("by the sea", "sea", true),
    ("on a rooftop", "rooftop", true),
    ("on a wooden table", "wooden table", false),
    ("in a room", "room", false),
    ("in space", "space", false),
    ("under water", "under water", false),
];

/// Places by themselves.
const LANDSCAPES: [(&str, &str, bool); 22] = [
    ("a mountain lake", "mountain lake", true),
    (
        "a mountain lake with a pine forest",
        "mountain lake with a pine forest",
        true,
    ),
    ("snowy mountains", "snowy mountains", true),
    ("rolling hills", "hills", true),
    ("a pine forest", "forest", true),
    ("a desert", "desert", true),
    ("the sea", "sea", true),
    ("a beach", "beach", true),
    ("a field of flowers", "field of flowers", true),
    ("a city skyline", "city skyline", true),
    ("a city street", "street", true),
    ("a castle on a hill", "castle on a hill", true),
    ("a village", "village", true),
    ("northern lights", "northern lights", false),
    ("a living room", "living room", false),
    ("a bedroom", "bedroom", false),
    ("a kitchen", "kitchen", false),
    ("a bathroom", "bathroom", false),
    ("an office", "office", false),
    ("a planet in space", "space", false),
    ("the surface of the moon", "moon", false),
    ("an underwater scene with fish", "under water", false),
];

/// Hours as they are asked for.
const HOURS: [(&str, Time); 4] = [
    ("at sunset", Time::Sunset),
    ("at night", Time::Night),
    ("during the day", Time::Day),
    ("at dawn", Time::Dawn),
];

/// Things that stand in any place.
const ANYWHERE: [&str; 6] = ["dog", "robot", "chair", "fox", "astronaut", "barrel"];

/// Things that are in space, under water and on a table.
const THERE: [(&str, [&str; 3]); 3] = [
    ("space", ["rocket", "spaceship", "planet"]),
    ("under water", ["fish", "shark", "dolphin"]),
    ("wooden table", ["apple", "cup", "cake"]),
];

/// Styles, `{}` in place of what is shown, and what is shown in them.
const STYLES: [(&str, usize); 6] = [
    ("an oil painting of {}", 1),
    ("a watercolour of {}", 2),
    ("pixel art of {}", 3),
    ("a line drawing of {}", 4),
    ("a flat illustration of {}", 5),
    ("a flat icon of {}", 6),
];
const IN_STYLES: [&str; 10] = [
    "a horse", "a car", "a house", "a tree", "a dog", "a cake", "a guitar", "a boat", "a teapot", "a castle",
];

/// All prompts, question by question.
pub fn prompts(catalogue: &Catalogue, answers: &Answers) -> Vec<Prompt> {
    let mut all = Vec::new();
    for (noun, name) in answers.nouns.iter().enumerate() {
        all.push(one(with_article(name), SINGLE, Asked::Noun(noun)));
    }
    colours(catalogue, answers, &mut all);
    counts(answers, &mut all);
    relations(answers, &mut all);
    scenes(answers, &mut all);
    for (words, style) in STYLES {
        let texts = IN_STYLES.iter().map(|shown| words.replace("{}", shown));
        all.extend(texts.map(|text| one(text, "styles", Asked::Style(style))));
    }
    for synonym in synonyms() {
        if let Some(noun) = answers.noun(synonym.noun) {
            all.push(one(with_article(synonym.word), "unseen synonyms", Asked::Noun(noun)));
        }
    }
    languages(catalogue, answers, &mut all);
    all
}

fn one(text: String, row: &str, asked: Asked) -> Prompt {
    Prompt {
        text,
        asked: vec![(row.to_owned(), asked)],
        named: None,
    }
}

/// The everyday nouns all of whose models can be painted over.
pub(super) fn painted_nouns(catalogue: &Catalogue, answers: &Answers) -> Vec<usize> {
    let takes_colours = |noun: &str| {
        let models = catalogue
            .models
            .iter()
            .filter(|m| !m.weak && (m.noun == noun || m.synonyms.iter().any(|s| s == noun)));
        let mut tints = models.map(|model| model.tint).peekable();
        tints.peek().is_some() && tints.all(|tint| matches!(tint, Tint::Main | Tint::All))
    };
    let nouns = (0..answers.nouns.len()).filter(|noun| takes_colours(&answers.nouns[*noun]));
    nouns.take(COLOURED_NOUNS).collect()
}

fn colours(catalogue: &Catalogue, answers: &Answers, all: &mut Vec<Prompt>) {
    for noun in painted_nouns(catalogue, answers) {
        let phrase = with_article(&answers.nouns[noun]);
        for (colour, said) in Colour::OBJECTS.iter().enumerate() {
            let text = with_adjective(&phrase, said.name());
            all.push(one(text, "colours", Asked::Colour { noun, colour }));
        }
    }
}

fn counts(answers: &Answers, all: &mut Vec<Prompt>) {
    let counted = answers
        .nouns
        .iter()
        .filter(|noun| is_counted(noun) && !noun.ends_with('s'));
    let step = answers.nouns.len() / COUNTED_NOUNS;
    for noun in counted.step_by(step.max(1)) {
        for (word, count) in [("two", 2), ("three", 3)] {
            all.push(one(
                format!("{word} {}", plural(noun)),
                "counts two and three",
                Asked::Count(count),
            ));
        }
    }
}

fn relations(answers: &Answers, all: &mut Vec<Prompt>) {
    let mut ask = |(first, second): (&str, &str), relation: Relation| {
        let words = match relation {
            Relation::LeftOf => "to the left of",
            Relation::RightOf => "to the right of",
            other => other.name(),
        };
        let text = format!("{} {words} {}", with_article(first), with_article(second));
        if let (Some(first), Some(second)) = (answers.noun(first), answers.noun(second)) {
            let asked = Asked::Relation {
                first,
                second,
                relation,
            };
            all.push(one(text, "relations", asked));
        }
    };
    for relation in Relation::ALL.into_iter().filter(|r| *r != Relation::OnTopOf) {
        for pair in PAIRS {
            ask(pair, relation);
        }
    }
    for pair in STACKED {
        ask(pair, Relation::OnTopOf);
    }
}

fn scenes(answers: &Answers, all: &mut Vec<Prompt>) {
    let mut ask = |text: &str, key: &str, hour: Option<(&str, Time)>| {
        let mut asked: Vec<(String, Asked)> = answers
            .place(key)
            .map(|p| ("places".to_owned(), Asked::Place(p)))
            .into_iter()
            .collect();
        let mut text = text.to_owned();
        if let Some((words, time)) = hour {
            text = format!("{text} {words}");
            let at = Time::ALL.iter().position(|t| *t == time);
            asked.extend(at.map(|time| ("times of day".to_owned(), Asked::Time(time))));
        }
        all.push(Prompt {
            text,
            asked,
            named: None,
        });
    };
    for (k, (words, key, outdoors)) in SCENES.into_iter().enumerate() {
        let own = THERE
            .iter()
            .find(|(place, _)| *place == key)
            .map(|(_, nouns)| nouns.as_slice());
        for (i, noun) in own.unwrap_or(&ANYWHERE[..4]).iter().enumerate() {
            let hour = HOURS[(k + i) % HOURS.len()];
            ask(
                &format!("{} {words}", with_article(noun)),
                key,
                outdoors.then_some(hour),
            );
        }
    }
    for (words, key, outdoors) in LANDSCAPES {
        if outdoors {
            for hour in HOURS {
                ask(words, key, Some(hour));
            }
        } else {
            ask(words, key, None);
        }
    }
}

/// The everyday nouns' names, by themselves.
fn languages(catalogue: &Catalogue, answers: &Answers, all: &mut Vec<Prompt>) {
    let mut by_language: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for (noun, english) in answers.nouns.iter().enumerate() {
        for (code, name) in catalogue.names.get(english).into_iter().flatten() {
            by_language.entry(code).or_default().push((noun, name));
        }
    }
    for (code, names) in by_language {
        all.extend(names.into_iter().map(|(noun, name)| Prompt {
            text: name.to_owned(),
            asked: vec![(format!("names in {code}"), Asked::Noun(noun))],
            named: Some(noun),
        }));
    }
}
