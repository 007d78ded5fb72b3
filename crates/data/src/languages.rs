//! Captions in the seven languages beside English.

use crate::caption::Said;
use crate::colour::Colour;
use crate::dataset::NounRecord;
use crate::random::Random;

/// One language: how it joins a name, a colour and a background. `{}` is the colour.
struct Language {
    code: &'static str,
    /// What may stand before a name; which of them is right is not known here.
    articles: &'static [&'static str],
    separator: &'static str,
    colour: &'static str,
    background: &'static str,
    /// In the order of [`COLOUR_ORDER`].
    colours: [&'static str; 15],
}

const COLOUR_ORDER: [Colour; 15] = [
    Colour::Red,
    Colour::Orange,
    Colour::Yellow,
    Colour::Green,
    Colour::Blue,
    Colour::Purple,
    Colour::Pink,
    Colour::Brown,
    Colour::Black,
    Colour::White,
    Colour::Grey,
    Colour::LightBlue,
    Colour::LightGreen,
    Colour::DarkBlue,
    Colour::Beige,
];

/// Colours stand beside "colour" or "background", so that nothing has to agree with the noun's gender.
const OTHERS: [Language; 7] = [
    Language {
        code: "de",
        articles: &["ein", "eine", "einen", "der", "die", "das"],
        separator: ", ",
        colour: "{}",
        background: "Hintergrund {}",
        colours: [
            "rot",
            "orange",
            "gelb",
            "grün",
            "blau",
            "lila",
            "rosa",
            "braun",
            "schwarz",
            "weiß",
            "grau",
            "hellblau",
            "hellgrün",
            "dunkelblau",
            "beige",
        ],
    },
    Language {
        code: "es",
        articles: &["un", "una", "el", "la"],
        separator: ", ",
        colour: "color {}",
        background: "fondo {}",
        colours: [
            "rojo",
            "naranja",
            "amarillo",
            "verde",
            "azul",
            "morado",
            "rosa",
            "marrón",
            "negro",
            "blanco",
            "gris",
            "azul claro",
            "verde claro",
            "azul oscuro",
            "beige",
        ],
    },
    Language {
        code: "fr",
        articles: &["un", "une", "le", "la"],
        separator: ", ",
        colour: "couleur {}",
        background: "fond {}",
        colours: [
            "rouge",
            "orange",
            "jaune",
            "vert",
            "bleu",
            "violet",
            "rose",
            "marron",
            "noir",
            "blanc",
            "gris",
            "bleu clair",
            "vert clair",
            "bleu foncé",
            "beige",
        ],
    },
    Language {
        code: "it",
        articles: &["un", "una", "uno", "il", "la"],
        separator: ", ",
        colour: "colore {}",
        background: "sfondo {}",
        colours: [
            "rosso",
            "arancione",
            "giallo",
            "verde",
            "blu",
            "viola",
            "rosa",
            "marrone",
            "nero",
            "bianco",
            "grigio",
            "azzurro",
            "verde chiaro",
            "blu scuro",
            "beige",
        ],
    },
    Language {
        code: "pt",
        articles: &["um", "uma", "o", "a"],
        separator: ", ",
        colour: "na cor {}",
        background: "fundo {}",
        colours: [
            "vermelho",
            "laranja",
            "amarelo",
            "verde",
            "azul",
            "roxo",
            "rosa",
            "marrom",
            "preto",
            "branco",
            "cinza",
            "azul claro",
            "verde claro",
            "azul escuro",
            "bege",
        ],
    },
    Language {
        code: "ja",
        articles: &[],
        separator: "、",
        colour: "{}",
        background: "{}の背景",
        colours: [
            "赤",
            "オレンジ色",
            "黄色",
            "緑",
            "青",
            "紫",
            "ピンク",
            "茶色",
            "黒",
            "白",
            "灰色",
            "水色",
            "黄緑",
            "紺色",
            "ベージュ",
        ],
    },
    Language {
        code: "zh",
        articles: &["一个", "一只"],
        separator: "，",
        colour: "{}",
        background: "{}背景",
        colours: [
            "红色",
            "橙色",
            "黄色",
            "绿色",
            "蓝色",
            "紫色",
            "粉色",
            "棕色",
            "黑色",
            "白色",
            "灰色",
            "浅蓝色",
            "浅绿色",
            "深蓝色",
            "米色",
        ],
    },
];

/// The same caption in another language. `None` if the noun has no name there.
pub fn in_language(noun: &NounRecord, code: &str, said: Said, random: &mut Random) -> Option<String> {
    phrase(code, noun.names.get(code)?, said.colour, said.background, random)
}

/// `[{article} ]{name}[, {colour}][, {background}]` in a language; `None` if the language is not known. The article is any
/// of the language's, in half of the captions: a prompt has one, and the model need only learn to read past it.
pub fn phrase(
    code: &str,
    name: &str,
    colour: Option<Colour>,
    background: Option<Colour>,
    random: &mut Random,
) -> Option<String> {
    let language = OTHERS.iter().find(|l| l.code == code)?;
    let article = random.pick(language.articles).filter(|_| random.chance(0.5));
    let mut caption = match article {
        // Chinese joins its words.
        Some(article) if article.is_ascii() => format!("{article} {name}"),
        Some(article) => format!("{article}{name}"),
        None => name.to_owned(),
    };
    let word = |colour: Colour| {
        COLOUR_ORDER
            .iter()
            .position(|c| *c == colour)
            .map(|i| language.colours[i])
    };
    for (colour, template) in [(colour, language.colour), (background, language.background)] {
        if let Some(word) = colour.and_then(word) {
            caption.push_str(language.separator);
            caption.push_str(&template.replace("{}", word));
        }
    }
    Some(caption)
}

/// Every word that these captions can bring in beside the nouns' names, for the tokenizer.
pub fn words() -> Vec<String> {
    let mut words = Vec::new();
    for language in &OTHERS {
        for colour in language.colours {
            words.push(language.colour.replace("{}", colour));
            words.push(language.background.replace("{}", colour));
        }
        words.extend(language.articles.iter().map(|&article| article.to_owned()));
        words.push(language.separator.to_owned());
    }
    words
}
