//! Captions: English noun phrases with the right article. The other languages are in [`super::languages`].

use crate::colour::Colour;
use crate::random::Random;

/// Measures that stand before the noun: "a pair of red scissors", not "a red pair of scissors".
const MEASURES: [&str; 14] = [
    "pair of ",
    "bunch of ",
    "slice of ",
    "loaf of ",
    "glass of ",
    "mug of ",
    "cup of ",
    "stack of ",
    "bowl of ",
    "box of ",
    "piece of ",
    "plate of ",
    "pot of ",
    "drop of ",
];

/// Splits off the article: ("a ", "dog"), ("", "french fries").
fn split_article(phrase: &str) -> (&str, &str) {
    for article in ["a ", "an ", "the ", "some "] {
        if phrase.starts_with(article) {
            return phrase.split_at(article.len());
        }
    }
    ("", phrase)
}

/// `a pair of scissors` -> `pair of scissors`.
pub fn without_article(phrase: &str) -> &str {
    split_article(phrase).1
}

/// "a" or "an" as the next word sounds.
pub fn indefinite_article(next: &str) -> &'static str {
    let word = next.split(' ').next().unwrap_or_default().to_lowercase();
    let sounded_as_consonant = ["uni", "use", "usa", "eu", "one", "ukulele", "ufo"]
        .iter()
        .any(|p| word.starts_with(p))
        && !word.starts_with("unin");
    let said_with_vowel = ["hour", "honest", "heir", "x-ray"].iter().any(|p| word.starts_with(p));
    let spelled_vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    if (spelled_vowel && !sounded_as_consonant) || said_with_vowel {
        "an"
    } else {
        "a"
    }
}

/// Puts an adjective before the noun: `an apple` + `red` -> `a red apple`; `a pair of scissors` -> `a pair of red
/// scissors`; `french fries` -> `red french fries`.
pub fn with_adjective(phrase: &str, adjective: &str) -> String {
    let (article, noun) = split_article(phrase);
    if let Some(measure) = MEASURES.iter().find(|m| noun.starts_with(**m)) {
        return format!("{article}{measure}{adjective} {}", &noun[measure.len()..]);
    }
    match article {
        "a " | "an " => format!("{} {adjective} {noun}", indefinite_article(adjective)),
        other => format!("{other}{adjective} {noun}"),
    }
}

/// Whether a phrase already says a colour of its noun: `a green apple`, but not `an orange`.
pub fn says_colour(phrase: &str) -> bool {
    let words: Vec<&str> = without_article(phrase).split([' ', '-']).collect();
    let before_noun = &words[..words.len() - 1];
    before_noun.contains(&"gold") || Colour::BACKGROUNDS.iter().any(|c| before_noun.contains(&c.name()))
}

/// Words that end in s and are one thing.
const SINGULAR_S: [&str; 16] = [
    "bus",
    "cactus",
    "octopus",
    "glass",
    "dress",
    "compass",
    "cross",
    "hibiscus",
    "lotus",
    "hippopotamus",
    "trellis",
    "tennis",
    "walrus",
    "rhinoceros",
    "catoblepas",
    "cyclops",
];
/// Labels that are names of stuff or of a single thing, and take no "a".
const NO_ARTICLE: [&str; 42] = [
    "bread",
    "bacon",
    "spaghetti",
    "sushi",
    "popcorn",
    "oden",
    "dango",
    "butter",
    "garlic",
    "ginger root",
    "salt",
    "rice",
    "cooked rice",
    "curry rice",
    "fog",
    "fire",
    "lightning",
    "tennis",
    "bowling",
    "ice",
    "broccoli",
    "ice hockey",
    "field hockey",
    "badminton",
    "ping pong",
    "lacrosse",
    "nail polish",
    "thread",
    "yarn",
    "luggage",
    "mount fuji",
    "santa claus",
    "mrs. claus",
    "mx claus",
    "skull and crossbones",
    "pouring liquid",
    "performing arts",
    "canned food",
    "sake",
    "mate",
    "dna",
    "palms up together",
];
/// Plurals that come as one pair.
const PAIRS: [&str; 13] = [
    "scissors",
    "glasses",
    "sunglasses",
    "goggles",
    "jeans",
    "shorts",
    "chopsticks",
    "skis",
    "gloves",
    "socks",
    "headphones",
    "dancers",
    "pliers",
];

/// A noun phrase for a label that nobody has written a phrase for.
pub fn phrase_of(label: &str) -> String {
    let label = label.to_lowercase().replace('’', "'");
    if PAIRS.contains(&label.as_str()) {
        return format!("a pair of {label}");
    }
    if NO_ARTICLE.contains(&label.as_str()) || label.starts_with("the ") {
        return label;
    }
    // "men wrestling", "two hearts", "cherries": several things need no article. What follows a preposition or a
    // participle does not count: "a house with gardens", "a person lifting weights".
    let first = label.split(' ').next().unwrap_or_default();
    let head = label
        .split(' ')
        .take_while(|w| !["with", "on", "in", "of", "behind", "over", "at", "and"].contains(w))
        .take_while(|w| !(["person", "man", "woman"].contains(&first) && w.ends_with("ing")))
        .last()
        .unwrap_or(first);
    let several = ["men", "women", "people"].contains(&first)
        || ["men", "women", "people", "feet", "teeth", "fries"].contains(&head);
    let plural = head.ends_with('s') && !head.ends_with("ss") && !head.ends_with("us") && !SINGULAR_S.contains(&head);
    if several || plural {
        label
    } else {
        format!("{} {label}", indefinite_article(&label))
    }
}

/// The simple plural of an English noun.
pub fn plural(noun: &str) -> String {
    if let Some(measure) = MEASURES.iter().find(|m| noun.starts_with(**m)) {
        let (head, rest) = measure.split_at(measure.find(' ').unwrap_or(measure.len()));
        return format!("{}{rest}{}", plural(head), &noun[measure.len()..]);
    }
    let irregular = [
        ("mouse", "mice"),
        ("fish", "fish"),
        ("sheep", "sheep"),
        ("deer", "deer"),
        ("man", "men"),
        ("woman", "women"),
        ("child", "children"),
        ("person", "people"),
        ("foot", "feet"),
        ("tooth", "teeth"),
        ("goose", "geese"),
        ("ox", "oxen"),
        ("leaf", "leaves"),
        ("loaf", "loaves"),
        ("knife", "knives"),
        ("wolf", "wolves"),
        ("die", "dice"),
        ("cactus", "cacti"),
        ("squid", "squid"),
        ("shrimp", "shrimp"),
        ("potato", "potatoes"),
        ("tomato", "tomatoes"),
        ("mango", "mangoes"),
        ("volcano", "volcanoes"),
        ("scarf", "scarves"),
        ("ear of corn", "ears of corn"),
    ];
    for (one, many) in irregular {
        if noun == one || noun.ends_with(&format!(" {one}")) {
            return format!("{}{many}", &noun[..noun.len() - one.len()]);
        }
    }
    if noun.ends_with(['s', 'x', 'z']) || noun.ends_with("ch") || noun.ends_with("sh") {
        format!("{noun}es")
    } else if let Some(stem) = noun.strip_suffix('y').filter(|s| !s.ends_with(['a', 'e', 'o', 'u'])) {
        format!("{stem}ies")
    } else {
        format!("{noun}s")
    }
}

/// How a caption names the background: not at all, or by its colour.
pub type Background = Option<Colour>;

/// What one caption says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said<'a> {
    pub colour: Option<Colour>,
    pub tag: Option<&'a str>,
    pub background: Background,
    pub style: Option<&'a str>,
}

/// `{article} [{colour}] {noun}[, {tag}][, {background}][, {style}]`.
pub fn english(phrase: &str, said: Said, random: &mut Random) -> String {
    let mut caption = match said.colour {
        Some(colour) => with_adjective(phrase, colour.name()),
        None => phrase.to_owned(),
    };
    if let Some(style) = said.style.filter(|s| *s == "photo") {
        return format!("a {style} of {caption}");
    }
    if let Some(tag) = said.tag {
        caption = format!("{caption}, {tag}");
    }
    if let Some(background) = said.background.map(Colour::name) {
        caption = match random.below(3) {
            0 => format!("{caption}, {background} background"),
            _ => format!(
                "{caption} on {} {background} background",
                indefinite_article(background)
            ),
        };
    }
    match said.style {
        Some(style) => format!("{caption}, {style}"),
        None => caption,
    }
}

/// Every word that the English templates can bring in, for the tokenizer.
pub fn template_words() -> Vec<String> {
    let mut words: Vec<String> = Colour::BACKGROUNDS
        .iter()
        .flat_map(|c| [format!("a {} background", c.name()), format!("on an {}", c.name())])
        .collect();
    words.extend(
        "a photo of, an, the, some, two, three, four, and, next to, on top of, left of, right of, above, below, to the \
         left of, to the right of, wearing, glossy 3d, flat, noto, classic noto, twemoji, emojione, line art, cartoon, \
         pixel art, clip art, photo, style, picture, drawing, illustration, background"
            .split(", ")
            .map(str::to_owned),
    );
    words
}

/// Several of it: `an apple` -> `apples`, `some carrots` -> `carrots`.
pub fn several(phrase: &str) -> String {
    match split_article(phrase) {
        ("some ", noun) => noun.to_owned(),
        ("", _) => phrase.to_owned(),
        (_, noun) => plural(noun),
    }
}
