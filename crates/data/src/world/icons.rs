//! Emoji and icons from npm packages: the glossy 3D set and flat sets, with their words in several languages.

use super::sprite::Sprite;
use crate::DataError;
use crate::caption;
use crate::colour::{Colour, Palette, repaint};
use crate::extras;
use crate::nouns::core_nouns;
use crate::packages::{Concept, Emojibase, IconifySet, code_points, find_package, has_extension, read_archive};
use crate::random::Random;
use resvg::{tiny_skia, usvg};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// The package with the glossy set.
const GLOSSY: &str = "@lobehub/fluent-emoji-3d";

/// Flat sets: package and the word for their style. Those that are not in the folder are left out.
const FLAT: [(&str, &str); 3] = [
    ("@iconify-json/fluent-emoji-flat", "flat icon"),
    ("@iconify-json/noto", "emoji"),
    ("@iconify-json/twemoji", "flat emoji"),
];

/// One thing that icons show.
#[derive(Debug)]
pub struct Icon {
    /// `dog`, `pair of scissors`.
    pub noun: String,
    /// Name by language code.
    pub names: BTreeMap<String, String>,
    /// Emojibase's group: 3 animals and nature, 4 food, 5 travel, 6 activities, 7 objects.
    pub group: u32,
    glossy: Vec<Vec<u8>>,
    /// Style and SVG document.
    flat: Vec<(&'static str, String)>,
}

/// The icons, common nouns first.
#[derive(Debug)]
pub struct Icons {
    pub icons: Vec<Icon>,
    common: usize,
}

/// The glossy drawing of a noun.
pub struct Glossy<'a> {
    pub icon: &'a Icon,
    pub sprite: Sprite,
    /// What most of it has.
    pub colour: Option<Colour>,
    /// Whether that is not its own.
    pub painted: bool,
}

/// Share of the glossy drawings that are repainted, where one hue leads.
const REPAINTED: f32 = 0.3;

/// Side of a drawn vector icon, pixels.
const SIDE_PX: u32 = 192;

impl Icons {
    /// Reads the packages that `npm pack` has downloaded into a folder: `emojibase-data` and the glossy set, and the flat
    /// sets where they are there.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let mut words = Emojibase::open(folder)?;
        let mut glossy: BTreeMap<String, Vec<u8>> =
            read_archive(&find_package(folder, GLOSSY)?, |name| has_extension(name, "webp"))?
                .into_iter()
                .filter_map(|(name, bytes)| {
                    let stem = name.rsplit('/').next()?.strip_suffix(".webp")?;
                    Some((code_points(stem), bytes))
                })
                .collect();
        let mut flat = Vec::new();
        for (package, style) in FLAT {
            if find_package(folder, package).is_ok() {
                let set = IconifySet::open(folder, package)?;
                words.learn_names(&set);
                flat.push((style, set));
            }
        }
        let joined: Vec<(&'static str, BTreeMap<String, String>, &IconifySet)> =
            flat.iter().map(|(style, set)| (*style, words.join(set), set)).collect();
        let mut drawings = |codes: &[String]| {
            let glossy: Vec<Vec<u8>> = codes.iter().filter_map(|code| glossy.remove(code)).collect();
            let flat = codes
                .iter()
                .flat_map(|code| {
                    joined
                        .iter()
                        .filter_map(|(style, names, set)| Some((*style, set.svg(names.get(code)?)?)))
                })
                .collect();
            (glossy, flat)
        };
        let mut icons: Vec<Icon> = Vec::new();
        let mut taken: HashSet<String> = HashSet::new();
        for core in core_nouns() {
            // A whole animal stands better than a face alone: faces come last, and only where there is nothing else.
            let mut shown: Vec<&Concept> = core.labels.iter().filter_map(|l| words.by_label(l)).collect();
            shown.sort_by_key(|c| c.label.contains("face"));
            let bodies = shown.iter().filter(|c| !c.label.contains("face")).count();
            shown.truncate(bodies.max(1));
            let Some(named) = words.by_label(&core.words).filter(|_| !shown.is_empty()) else {
                continue;
            };
            let codes: Vec<String> = shown.iter().map(|c| c.code.clone()).collect();
            taken.extend(codes.iter().cloned());
            let (glossy, flat) = drawings(&codes);
            icons.push(icon(caption::without_article(&core.phrase), named, glossy, flat));
        }
        let common = icons.len();
        for concept in &words.concepts {
            // Faces and people have many near-twins with one word between them.
            let shown = matches!(concept.group, 3..=7) && extras::is_wanted(concept) && !taken.contains(&concept.code);
            if shown {
                let phrase = extras::phrase(concept);
                let (glossy, flat) = drawings(std::slice::from_ref(&concept.code));
                icons.push(icon(caption::without_article(&phrase), concept, glossy, flat));
            }
        }
        icons.retain(|i| !i.glossy.is_empty() || !i.flat.is_empty());
        Ok(Self {
            common: common.min(icons.len()),
            icons,
        })
    }

    pub fn has_glossy(&self, noun: &str) -> bool {
        self.glossy_icon(noun).is_some()
    }

    /// What is called so beside the core nouns comes first, for those are faces of animals where another icon is the whole one.
    fn glossy_icon(&self, noun: &str) -> Option<&Icon> {
        let mut named = self.icons.iter().filter(|i| i.noun == noun && !i.glossy.is_empty());
        named.next_back()
    }

    /// The glossy drawing of a noun, if there is one: always the same, now and then in another colour.
    pub fn glossy(&self, noun: &str, random: &mut Random) -> Option<Glossy<'_>> {
        let icon = self.glossy_icon(noun)?;
        let mut image = image::load_from_memory(&icon.glossy[0]).ok()?.to_rgba8();
        let palette = Palette::of(image.as_raw());
        let wanted = random.chance(REPAINTED) && palette.is_hue_shiftable();
        let paint = wanted.then(|| random.pick(&Colour::OBJECTS).copied()).flatten();
        if let Some(colour) = paint {
            repaint(image.as_mut(), palette.hue, palette.luma, colour);
        }
        Some(Glossy {
            icon,
            sprite: Sprite::from_rgba(image.width() as usize, image.height() as usize, image.as_raw())?,
            colour: paint.or(palette.main),
            painted: paint.is_some(),
        })
    }

    /// One icon, a common one in two cases of three, and its drawing: the glossy one wherever `glossy` asks for it and it
    /// exists. Returns the style's word for a flat one.
    pub fn draw(&self, glossy: bool, noun: Option<&str>, random: &mut Random) -> Option<(&Icon, Sprite, &'static str)> {
        for _ in 0..20 {
            let icon = match noun {
                Some(noun) => self.icons.iter().find(|i| i.noun == noun)?,
                None if random.chance(0.66) => &self.icons[random.below(self.common)],
                None => &self.icons[random.below(self.icons.len())],
            };
            let drawn = if !icon.glossy.is_empty() && (glossy || icon.flat.is_empty()) {
                bitmap(&icon.glossy[random.below(icon.glossy.len())]).map(|s| (s, "glossy 3d"))
            } else if glossy || icon.flat.is_empty() {
                None
            } else {
                let (style, svg) = &icon.flat[random.below(icon.flat.len())];
                vector(svg).map(|s| (s, *style))
            };
            if let Some((sprite, style)) = drawn {
                return Some((icon, sprite, style));
            }
        }
        None
    }
}

fn icon(noun: &str, concept: &Concept, glossy: Vec<Vec<u8>>, flat: Vec<(&'static str, String)>) -> Icon {
    Icon {
        noun: noun.to_owned(),
        names: concept
            .names
            .iter()
            .filter(|(language, _)| *language != "en")
            .map(|(language, name)| (language.clone(), name.to_lowercase()))
            .collect(),
        group: concept.group,
        glossy,
        flat,
    }
}

fn bitmap(bytes: &[u8]) -> Option<Sprite> {
    let image = image::load_from_memory(bytes).ok()?.to_rgba8();
    Sprite::from_rgba(image.width() as usize, image.height() as usize, image.as_raw())
}

fn vector(svg: &str) -> Option<Sprite> {
    let tree = usvg::Tree::from_str(svg, &usvg::Options::default()).ok()?;
    let scale = SIDE_PX as f32 / tree.size().width().max(tree.size().height());
    let mut pixmap = tiny_skia::Pixmap::new(SIDE_PX, SIDE_PX)?;
    resvg::render(
        &tree,
        tiny_skia::Transform::from_scale(scale, scale),
        &mut pixmap.as_mut(),
    );
    let straight: Vec<u8> = pixmap
        .pixels()
        .iter()
        .flat_map(|p| {
            let c = p.demultiply();
            [c.red(), c.green(), c.blue(), c.alpha()]
        })
        .collect();
    Sprite::from_rgba(SIDE_PX as usize, SIDE_PX as usize, &straight)
}
