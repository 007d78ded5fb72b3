//! Captions from facts: exact, varied in wording, order and length.

use super::facts::{Facts, Relation, Style, Thing, View};
use super::light::{Time, Weather};
use super::phrases::{landscape_words, pick, place_words, time_words, weather_words};
use crate::caption::indefinite_article;
use crate::colour::Colour;
use crate::random::Random;

/// Nouns that take no article: things that are not counted, or are always many.
const UNCOUNTED: [&str; 28] = [
    "pancakes",
    "fire",
    "french fries",
    "bread",
    "cheese",
    "toast",
    "bacon",
    "salad",
    "sushi",
    "glasses",
    "scissors",
    "pliers",
    "tweezers",
    "wheat",
    "grass",
    "rice",
    "firewood",
    "lettuce",
    "rubble",
    "toilet paper",
    "whipped cream",
    "spikes",
    "cherries",
    "grapes",
    "stairs",
    "binoculars",
    "dynamite",
    "ice cream",
];

/// The plural of an English noun phrase.
pub fn plural(noun: &str) -> String {
    if let Some((head, rest)) = noun.split_once(" of ") {
        return format!("{} of {rest}", plural(head));
    }
    for (one, many) in [
        ("sheep", "sheep"),
        ("deer", "deer"),
        ("elk", "elk"),
        ("fish", "fish"),
        ("wolf", "wolves"),
        ("knife", "knives"),
        ("loaf", "loaves"),
        ("leaf", "leaves"),
        ("shelf", "shelves"),
        ("bookshelf", "bookshelves"),
        ("mouse", "mice"),
        ("man", "men"),
        ("woman", "women"),
        ("child", "children"),
        ("tooth", "teeth"),
        ("foot", "feet"),
        ("goose", "geese"),
        ("cactus", "cacti"),
        ("die", "dice"),
        ("aircraft", "aircraft"),
        ("scarf", "scarves"),
    ] {
        if noun == one
            || (noun.ends_with(one) && (one == "fish" || noun[..noun.len() - one.len()].ends_with([' ', '-'])))
        {
            return format!("{}{many}", &noun[..noun.len() - one.len()]);
        }
    }
    let consonant_y = noun.ends_with('y') && !["ay", "ey", "oy", "uy"].iter().any(|v| noun.ends_with(v));
    if consonant_y {
        format!("{}ies", &noun[..noun.len() - 1])
    } else if ["s", "x", "ch", "sh", "tomato", "potato", "mango", "hero"]
        .iter()
        .any(|end| noun.ends_with(end))
    {
        format!("{noun}es")
    } else {
        format!("{noun}s")
    }
}

/// `a cat`, `an apple`, `french fries`.
pub fn with_article(noun: &str) -> String {
    if !is_counted(noun) {
        return noun.to_owned();
    }
    format!("{} {noun}", indefinite_article(noun))
}

/// Whether there can be two of what an English noun names.
pub fn is_counted(noun: &str) -> bool {
    !UNCOUNTED.contains(&noun)
}

/// `a red car`, `two cats`, `french fries`.
fn subject(thing: &Thing, random: &mut Random) -> String {
    let noun = if random.chance(0.16) {
        random.pick(&thing.synonyms).map_or(thing.noun.as_str(), String::as_str)
    } else {
        &thing.noun
    };
    let says = thing
        .colour
        .filter(|_| random.chance(if thing.painted { 0.95 } else { 0.16 }));
    let colour = says.map_or(String::new(), |c| {
        let name = c.name();
        format!(
            "{} ",
            if name == "grey" && random.chance(0.3) {
                "gray"
            } else {
                name
            }
        )
    });
    let modifier = thing.modifier.as_ref().filter(|_| random.chance(0.5));
    // "a golden sword", but never "a yellow golden sword".
    let colour = match modifier {
        Some(word) if Colour::from_name(word).is_some() || word == "golden" => format!("{word} "),
        Some(word) => format!("{colour}{word} "),
        None => colour,
    };
    let body = |noun: &str| match noun.split_once(" of ") {
        // "a bunch of red grapes"
        Some((measure @ ("bunch" | "pair" | "slice" | "piece" | "strip" | "loaf" | "pile"), rest))
            if !colour.is_empty() =>
        {
            format!("{measure} of {colour}{rest}")
        }
        _ => format!("{colour}{noun}"),
    };
    if thing.count > 1 {
        let number = ["", "", "two", "three", "four"][thing.count.min(4)];
        let number = if random.chance(0.12) {
            ["", "", "2", "3", "4"][thing.count.min(4)]
        } else {
            number
        };
        return format!("{number} {}", body(&plural(noun)));
    }
    if thing.several {
        let some = if random.chance(0.3) { "some " } else { "" };
        return format!("{some}{}", body(&thing.noun));
    }
    if !is_counted(noun) {
        return body(noun);
    }
    let body = body(noun);
    let article = indefinite_article(&body);
    match random.below(20) {
        0 => format!("the {body}"),
        1 | 2 => body,
        3 if thing.colour.is_none() || colour.is_empty() => format!("one {body}"),
        _ => format!("{article} {body}"),
    }
}

/// ` seen from behind` and the like, for views that a caption must say.
fn view_words(view: Option<View>, random: &mut Random) -> &'static str {
    match view {
        Some(View::Side) => pick(
            &[
                ", side view",
                " seen from the side",
                " in profile",
                " from the side",
                ", viewed from the side",
            ],
            random,
        ),
        Some(View::Back) => pick(
            &[
                " from behind",
                " seen from behind",
                ", back view",
                ", rear view",
                " seen from the back",
            ],
            random,
        ),
        Some(View::Front) if random.chance(0.4) => pick(
            &[
                ", front view",
                " seen from the front",
                " facing the viewer",
                " from the front",
            ],
            random,
        ),
        Some(View::ThreeQuarter) if random.chance(0.08) => ", three-quarter view",
        _ => "",
    }
}

impl Facts {
    /// The first thing swims on water.
    pub(super) fn afloat(&self) -> bool {
        self.things.first().is_some_and(|t| {
            ["boat", "ship", "raft", "canoe", "swan", "duck", "galleon", "lily"]
                .iter()
                .any(|w| t.noun.contains(w) || t.model.contains(w))
        })
    }
}

/// One caption.
pub fn write(facts: &Facts, random: &mut Random) -> String {
    let (time, weather) = match (facts.time, facts.weather) {
        (Some(time), Some(weather)) => {
            let weather_said = weather_words(weather, time, random);
            let mut time_said = time_words(time, random);
            // "on a sunny day during the day" says it twice.
            if time == Time::Day && !weather_said.is_empty() {
                time_said = "";
            }
            let day = weather_said.contains(" day") && time != Time::Day;
            let weather_said = match (day, weather) {
                (true, Weather::Cloudy) => "under a cloudy sky",
                (true, Weather::Fog) => "in fog",
                (true, Weather::Rain) => "in the rain",
                (true, Weather::Snow) => "while it snows",
                _ => weather_said,
            };
            (time_said, weather_said)
        }
        _ => ("", ""),
    };
    let mut core = if facts.things.is_empty() {
        let misty = facts.weather == Some(Weather::Fog) && random.chance(0.3);
        let words = landscape_words(facts, random);
        match words.strip_prefix("a ") {
            Some(rest) if misty => format!("a {} {rest}", pick(&["misty", "foggy"], random)),
            _ => words,
        }
    } else {
        things_words(facts, random)
    };
    let place = if facts.things.is_empty() {
        String::new()
    } else {
        place_words(facts, random)
    };
    let mut parts: Vec<String> = Vec::new();
    if let Some(colour) = facts.background {
        let name = colour.name();
        let article = indefinite_article(name);
        let plain = indefinite_article("plain");
        let said = match random.below(8) {
            0 => format!(" on {plain} plain {name} background"),
            1 => format!(" against {article} {name} background"),
            2 => format!(", {name} background"),
            3 => format!(" in front of {article} {name} background"),
            _ => format!(" on {article} {name} background"),
        };
        if random.chance(0.88) {
            core.push_str(&said);
        }
    } else if !place.is_empty() && random.chance(0.92) {
        parts.push(place);
    }
    if !time.is_empty() && random.chance(0.93) {
        parts.push(time.to_owned());
    }
    if !weather.is_empty() && random.chance(0.93) {
        parts.push(weather.to_owned());
    }
    let named =
        core.starts_with("a ") || core.starts_with("an ") || core.starts_with("two ") || core.starts_with("three ");
    let (text, inverted) = join(core, &parts, random);
    let mut text = styled(text, facts.style, named && !inverted, random);
    if random.chance(0.10) {
        // People begin sentences.
        let mut letters = text.chars();
        if let Some(first) = letters.next() {
            text = first.to_uppercase().chain(letters).collect();
        }
        if random.chance(0.5) {
            text.push('.');
        }
    }
    text
}

/// The core and what stands around it, in one of several orders.
/// Whether the core comes last is the second result.
fn join(core: String, parts: &[String], random: &mut Random) -> (String, bool) {
    if parts.is_empty() {
        return (core, false);
    }
    let text = match random.below(10) {
        0 | 1 => {
            // "at sunset, a red car on a beach"
            let (first, last) = parts.split_at(parts.len() - 1);
            let mut text = format!("{}, {core}", last[0]);
            for part in first {
                text = format!("{text} {part}");
            }
            return (text, true);
        }
        2 | 3 => format!("{core}, {}", parts.join(", ")),
        4 if parts.len() > 1 => {
            let mut turned = parts.to_vec();
            turned.reverse();
            format!("{core} {}", turned.join(" "))
        }
        _ => format!("{core} {}", parts.join(" ")),
    };
    (text, false)
}

fn things_words(facts: &Facts, random: &mut Random) -> String {
    let [first, rest @ ..] = facts.things.as_slice() else {
        return String::new();
    };
    let a = subject(first, random);
    let Some(second) = rest.first() else {
        let view = view_words(first.view, random);
        return format!("{a}{view}");
    };
    let b = subject(second, random);
    let relation = match facts.relation {
        Some(Relation::NextTo) | None => pick(
            &["next to", "next to", "beside", "and", "and", "by the side of"],
            random,
        ),
        Some(Relation::LeftOf) => pick(&["to the left of", "left of", "on the left of"], random),
        Some(Relation::RightOf) => pick(&["to the right of", "right of", "on the right of"], random),
        Some(Relation::InFrontOf) => "in front of",
        Some(Relation::Behind) => "behind",
        Some(Relation::OnTopOf) => pick(&["on top of", "on", "on top of", "standing on"], random),
    };
    if random.chance(0.12) {
        // The same said from the other side.
        let turned = match facts.relation {
            Some(Relation::LeftOf) => Some("to the right of"),
            Some(Relation::RightOf) => Some("to the left of"),
            Some(Relation::InFrontOf) => Some("behind"),
            Some(Relation::Behind) => Some("in front of"),
            Some(Relation::OnTopOf) => Some("under"),
            _ => None,
        };
        if let Some(turned) = turned {
            return format!("{b} {turned} {a}");
        }
    }
    format!("{a} {relation} {b}")
}

/// `leads`: the text begins with its subject, so that "a painting of" may stand before it.
fn styled(text: String, style: Style, leads: bool, random: &mut Random) -> String {
    let (before, after): (&[&str], &[&str]) = match style {
        Style::Render => {
            return match random.below(24) {
                0 => format!("{text}, 3d render"),
                1 if leads => format!("a 3d render of {text}"),
                2 if leads => format!("a picture of {text}"),
                3 if leads => format!("an image of {text}"),
                4 => format!("{text}, low poly"),
                _ => text,
            };
        }
        Style::Icon("glossy 3d") if random.chance(0.55) => return text,
        Style::Icon("glossy 3d") => (
            &["a glossy 3d icon of {}", "a 3d emoji of {}"],
            &["{}, glossy 3d", "{}, 3d emoji", "{}, 3d icon"],
        ),
        Style::Icon("pixel art") => (&["pixel art of {}"], &["{}, pixel art", "{}, pixel art"]),
        Style::Icon(_) => (
            &["a flat icon of {}", "an emoji of {}"],
            &["{}, flat icon", "{}, emoji", "{}, icon"],
        ),
        Style::Photo => (
            &["a photo of {}", "a photograph of {}", "a close-up photo of {}"],
            &["{}, photo", "{}, photograph", "{}, close-up photo"],
        ),
        Style::OilPainting => (
            &["an oil painting of {}", "oil painting of {}", "a painting of {}"],
            &["{}, oil painting", "{} in oil", "{}, painted in oil"],
        ),
        Style::Watercolour => (
            &[
                "a watercolour of {}",
                "a watercolor painting of {}",
                "watercolour painting of {}",
            ],
            &["{}, watercolour", "{}, watercolor", "{}, watercolour painting"],
        ),
        Style::PixelArt => (
            &["pixel art of {}", "a pixel art picture of {}"],
            &["{}, pixel art", "{} in pixel art style", "{}, 8-bit"],
        ),
        Style::LineArt => (
            &[
                "a line drawing of {}",
                "line art of {}",
                "a black and white drawing of {}",
                "a sketch of {}",
            ],
            &["{}, line art", "{}, line drawing"],
        ),
        Style::Poster => (
            &["a flat illustration of {}", "a poster of {}"],
            &["{}, flat illustration", "{}, flat design", "{}, poster"],
        ),
    };
    let form = if leads && random.chance(0.55) {
        pick(before, random)
    } else {
        pick(after, random)
    };
    form.replace("{}", &text)
}
