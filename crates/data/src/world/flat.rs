//! Pictures of flat things: icons on plain ground, icons standing in places, photographs, pixel-art tiles.

use super::canvas::Canvas;
use super::facts::{Facts, Relation, Style, Thing};
use super::icons::{Glossy, Icon};
use super::maths::{self, srgb};
use super::place::Place;
use super::room::RoomKind;
use super::set::{DISTANCE, Picture, Set, backdrop_colour};
use super::sprite::{Sprite, Stand};
use super::{Kind, World};
use crate::caption::without_article;
use crate::colour::{Colour, name_of};
use crate::random::Random;
use glam::Vec3;

/// The picture of a kind that needs what this world was not given: an object instead.
fn instead(world: &World, size: (usize, usize), random: &mut Random) -> Picture {
    super::compose::picture(world, Kind::Object, Style::Render, size, random, None)
}

fn srgb_mean(sprite: &Sprite) -> [f32; 3] {
    sprite.mean().to_array().map(maths::encode)
}

fn thing(noun: &str, set: &str, names: std::collections::BTreeMap<String, String>, boxes: Vec<[f32; 4]>) -> Thing {
    Thing {
        noun: noun.to_owned(),
        synonyms: Vec::new(),
        modifier: None,
        names,
        several: false,
        model: set.to_owned(),
        count: boxes.len(),
        colour: None,
        painted: false,
        view: None,
        objects: (1..=boxes.len() as u8).collect(),
        boxes,
    }
}

fn fractions([l, t, r, b]: [f32; 4], width: usize, height: usize) -> [f32; 4] {
    let (w, h) = (width as f32, height as f32);
    [l / w, t / h, r / w, b / h].map(|v| v.clamp(0.0, 1.0))
}

/// An icon to show.
pub(super) struct Shown<'a> {
    icon: &'a Icon,
    sprite: Sprite,
    /// The word for its style.
    style: &'static str,
    colour: Option<Colour>,
    painted: bool,
    /// May be seen from the other side. What has one look for all pictures has no mirrored one either: a network that has seen little
    /// of a cat looking left and of one looking right draws a cat with two heads.
    turns: bool,
}

impl<'a> Shown<'a> {
    pub fn glossy(glossy: Glossy<'a>) -> Self {
        Self {
            icon: glossy.icon,
            sprite: glossy.sprite,
            style: "glossy 3d",
            colour: glossy.colour,
            painted: glossy.painted,
            turns: false,
        }
    }

    fn new((icon, sprite, style): (&'a Icon, Sprite, &'static str)) -> Self {
        Self {
            icon,
            sprite,
            style,
            colour: None,
            painted: false,
            turns: true,
        }
    }

    /// It as one thing of a picture, with the box of each copy.
    fn thing(&self, boxes: Vec<[f32; 4]>) -> Thing {
        Thing {
            colour: self.colour,
            painted: self.painted,
            ..thing(&self.icon.noun, self.style, self.icon.names.clone(), boxes)
        }
    }
}

/// One icon on a plain background in many placements; now and then two of it, three of it, or two different ones.
pub(super) fn icons(world: &World, size: (usize, usize), random: &mut Random, noun: Option<&str>) -> Picture {
    let glossy = random.chance(0.5);
    let drawn = world.icons.as_ref().and_then(|icons| {
        let first = icons
            .draw(glossy, noun, random)
            .or_else(|| icons.draw(true, noun, random))?;
        let second = (random.chance(0.2) && noun.is_none())
            .then(|| icons.draw(glossy, None, random))
            .flatten();
        let second = second.filter(|s| s.0.noun != first.0.noun);
        Some((Shown::new(first), second.map(Shown::new)))
    });
    let Some((first, second)) = drawn else {
        return instead(world, size, random);
    };
    let several = |random: &mut Random| if random.chance(0.2) { 2 + random.below(2) } else { 1 };
    on_plain_ground(world, size, random, &first, second.as_ref(), several)
}

/// `first` so many times as `several` draws, or once beside `second`, on a plain background.
pub(super) fn on_plain_ground(
    world: &World,
    size: (usize, usize),
    random: &mut Random,
    first: &Shown,
    second: Option<&Shown>,
    several: impl FnOnce(&mut Random) -> usize,
) -> Picture {
    let Shown { sprite, style, .. } = first;
    let mut set = Set::new(world, Place::Studio, Style::Render, size, false, random, |random| {
        backdrop_colour(srgb_mean(sprite), random)
    });
    let (w, h) = (
        size.0 as f32 * DISTANCE / set.view.focal_px,
        size.1 as f32 * DISTANCE / set.view.focal_px,
    );
    let grounded = random.chance(0.45);
    let copies = if second.is_some() { 2 } else { several(random) };
    let pair: Vec<&Sprite> = match second {
        Some(other) => vec![sprite, &other.sprite],
        None => vec![sprite; copies],
    };
    let widest = pair.iter().map(|s| s.aspect()).fold(0.0, f32::max);
    let room = w * if copies > 1 { 0.86 } else { random.range(0.55, 0.82) };
    let tall = (h * random.range(0.46, 0.74)).min(room / (copies as f32 * widest * 1.12 - 0.12 * widest));
    // The row where the icons' middles are, and the height of their feet above the ground there.
    let middle = random.range(0.44, 0.56) * size.1 as f32;
    let base = set.camera.eye.y - (middle - set.view.horizon_px) * DISTANCE / set.view.focal_px - tall * 0.5;
    let tall = if grounded {
        tall.min(set.foot * DISTANCE / set.view.focal_px * 0.9)
    } else {
        tall
    };
    let foot_y = if grounded { 0.0 } else { base };
    let wander = if copies == 1 {
        random.range(-0.5, 0.5) * (w * 0.94 - tall * widest).max(0.0) * 0.6
    } else {
        0.0
    };
    let mirrored = random.chance(0.3) && first.turns;
    let mut boxes = Vec::new();
    let (camera, light) = (set.camera, set.light);
    for (k, sprite) in pair.iter().enumerate() {
        let x = wander + (k as f32 - (copies - 1) as f32 * 0.5) * tall * widest * 1.12;
        let stand = Stand {
            foot: Vec3::new(x, foot_y, 0.0),
            tall,
            flip: mirrored,
            grounded,
        };
        sprite.draw(&mut set.canvas, &mut set.mask, &camera, &light, &stand, k as u8 + 1);
        boxes.push(fractions(sprite.projected(&camera, &stand), size.0, size.1));
    }
    let (things, relation) = match second {
        Some(other) => {
            let (mut a, mut b) = (first.thing(vec![boxes[0]]), other.thing(vec![boxes[1]]));
            (a.objects, b.objects) = (vec![1], vec![2]);
            let relation = [Relation::NextTo, Relation::LeftOf][random.below(2)];
            (vec![a, b], Some(relation))
        }
        None => (vec![first.thing(boxes)], None),
    };
    let mut picture = set.picture(things, relation);
    picture.facts.style = Style::Icon(style);
    picture
}

/// Whether a thing stands on the ground: not the sky's, and no face without a body.
fn stands(noun: &str) -> bool {
    ![
        "cloud",
        "sun",
        "moon",
        "star",
        "rainbow",
        "snowflake",
        "comet",
        "wave",
        "tornado",
        "fog",
        "drop",
        "wind",
        "lightning",
        "face",
        "head",
        "planet",
        "globe",
        "map",
        "milky",
        "night",
        "sunrise",
        "sunset",
        "cyclone",
        "eye",
        "web",
        "ticket",
        "galaxy",
        "print",
        "volcano",
        "mountain",
        "fuji",
        "city",
        "bridge",
        "park",
        "beach",
        "island",
        "desert",
    ]
    .iter()
    .any(|w| noun.contains(w))
}

/// A glossy icon standing in a place.
pub(super) fn figure(world: &World, size: (usize, usize), random: &mut Random, noun: Option<&str>) -> Picture {
    let drawn = world.icons.as_ref().and_then(|icons| {
        (0..8).find_map(|_| {
            icons
                .draw(true, noun, random)
                .filter(|(icon, ..)| noun.is_some() || stands(&icon.noun))
        })
    });
    match drawn {
        Some(drawn) => in_a_place(world, size, random, &Shown::new(drawn)),
        None => instead(world, size, random),
    }
}

/// An icon standing in a place that fits it.
pub(super) fn in_a_place(world: &World, size: (usize, usize), random: &mut Random, shown: &Shown) -> Picture {
    let Shown {
        icon, sprite, style, ..
    } = shown;
    let nature = [
        Place::Hills,
        Place::Lake,
        Place::Beach,
        Place::SnowyMountains,
        Place::Forest,
        Place::FlowerField,
        Place::Desert,
        Place::Village,
        Place::Rooftop,
        Place::Skyline,
    ];
    let place = match icon.group {
        4 if random.chance(0.8) => Place::Table,
        7 if random.chance(0.7) => [Place::Table, Place::Room(RoomKind::Plain)][random.below(2)],
        _ => nature[random.below(nature.len())],
    };
    let mut set = Set::new(world, place, Style::Render, size, false, random, |_| Colour::White);
    let unit = DISTANCE / set.view.focal_px;
    let (w, h) = (size.0 as f32 * unit, set.foot * unit);
    let tall = (h * random.range(0.55, 0.85))
        .min(0.62 * w / sprite.aspect())
        .min(size.1 as f32 * unit * 0.66);
    let free = (w * 0.94 - tall * sprite.aspect()).max(0.0) * 0.5;
    let stand = Stand {
        foot: Vec3::new(random.range(-0.6, 0.6) * free, 0.0, 0.0),
        tall,
        flip: random.chance(0.5) && shown.turns,
        grounded: true,
    };
    let (camera, light) = (set.camera, set.light);
    sprite.draw(&mut set.canvas, &mut set.mask, &camera, &light, &stand, 1);
    let boxes = vec![fractions(sprite.projected(&camera, &stand), size.0, size.1)];
    set.fall(world, random);
    let mut picture = set.picture(vec![shown.thing(boxes)], None);
    picture.facts.style = Style::Icon(style);
    picture
}

/// A photograph that fills the picture.
pub(super) fn photo(world: &World, size: (usize, usize), random: &mut Random) -> Picture {
    let decoded = random
        .pick(&world.photos)
        .and_then(|(phrase, bytes)| Some((phrase, image::load_from_memory(bytes).ok()?.to_rgb8())));
    let Some((phrase, image)) = decoded else {
        return instead(world, size, random);
    };
    let (w, h) = (size.0 as f32, size.1 as f32);
    let (iw, ih) = (image.width() as f32, image.height() as f32);
    let zoom = (w / iw).max(h / ih) * random.range(1.0, 1.12);
    let (x0, y0) = (random.unit() * (iw - w / zoom), random.unit() * (ih - h / zoom));
    let mirrored = random.chance(0.5);
    let mut canvas = Canvas::new(size.0, size.1);
    let table: Vec<f32> = (0..256).map(|v| maths::decode(v as f32 / 255.0)).collect();
    for y in 0..size.1 {
        for x in 0..size.0 {
            let px = if mirrored { size.0 - 1 - x } else { x };
            let u = (x0 + (px as f32 + 0.5) / zoom - 0.5).clamp(0.0, iw - 1.001);
            let v = (y0 + (y as f32 + 0.5) / zoom - 0.5).clamp(0.0, ih - 1.001);
            let (xi, yi) = (u as u32, v as u32);
            let (fu, fv) = (u - xi as f32, v - yi as f32);
            let at = |dx: u32, dy: u32| {
                let p = image.get_pixel((xi + dx).min(image.width() - 1), (yi + dy).min(image.height() - 1));
                Vec3::from_array(p.0.map(|v| table[usize::from(v)]))
            };
            let c = at(0, 0).lerp(at(1, 0), fu).lerp(at(0, 1).lerp(at(1, 1), fu), fv);
            // The canvas rolls off brights on its way out; a photograph has been through that once.
            canvas.pixels[y * size.0 + x] = c.map(unroll);
        }
    }
    let mut shown = thing(
        without_article(phrase),
        "photo",
        std::collections::BTreeMap::new(),
        vec![[0.0, 0.0, 1.0, 1.0]],
    );
    // Most of the photographs show several of the fruit.
    if phrase.starts_with("some ") {
        shown.several = true;
    } else if random.chance(0.6) {
        shown.noun = super::caption::plural(&shown.noun);
        shown.several = true;
    }
    let mask = vec![1; size.0 * size.1];
    picture_of(canvas, mask, shown, None, Style::Photo)
}

/// What the canvas' shoulder turns into `v`.
fn unroll(v: f32) -> f32 {
    if v <= 0.8 {
        v
    } else {
        1.8 - (1.0 - ((v - 0.8) / 0.2).min(1.0)).max(0.0).sqrt()
    }
}

fn picture_of(canvas: Canvas, mask: Vec<u8>, shown: Thing, background: Option<Colour>, style: Style) -> Picture {
    Picture {
        canvas,
        mask,
        facts: Facts {
            things: vec![shown],
            relation: None,
            place: Place::Studio,
            detail: None,
            time: None,
            weather: None,
            background,
            style,
        },
    }
}

/// A tile of pixel art, enlarged with hard edges, on a plain background.
pub(super) fn tile(world: &World, size: (usize, usize), random: &mut Random) -> Picture {
    let decoded = random
        .pick(&world.tiles)
        .and_then(|(phrase, bytes)| Some((phrase, image::load_from_memory(bytes).ok()?.to_rgba8())));
    let Some((phrase, image)) = decoded else {
        return instead(world, size, random);
    };
    let side = size.0.min(size.1);
    let scale = (side * 8 / 10 / image.width().max(image.height()) as usize).max(1);
    let (iw, ih) = (image.width() as usize * scale, image.height() as usize * scale);
    let opaque: Vec<[f32; 3]> = image
        .pixels()
        .filter(|p| p[3] > 127)
        .map(|p| [p[0], p[1], p[2]].map(|v| f32::from(v) / 255.0))
        .collect();
    let mean = [0, 1, 2].map(|c| opaque.iter().map(|p| p[c]).sum::<f32>() / opaque.len().max(1) as f32);
    let background = backdrop_colour(mean, random);
    let [r, g, b] = background.background();
    let mut canvas = Canvas::new(size.0, size.1);
    canvas.pixels.fill(srgb(r, g, b));
    let mut mask = vec![0; size.0 * size.1];
    let left = (size.0 - iw) / 2 + random.below((size.0 - iw) / 6 + 1) - (size.0 - iw) / 12;
    let top = (size.1 - ih) / 2;
    for y in 0..ih {
        for x in 0..iw {
            let p = image.get_pixel((x / scale) as u32, (y / scale) as u32);
            if p[3] > 127 {
                canvas.pixels[(top + y) * size.0 + left + x] = srgb(p[0], p[1], p[2]).map(unroll);
                mask[(top + y) * size.0 + left + x] = 1;
            }
        }
    }
    let bounds = fractions(
        [left as f32, top as f32, (left + iw) as f32, (top + ih) as f32],
        size.0,
        size.1,
    );
    let mut shown = thing(
        without_article(phrase),
        "pixel art",
        std::collections::BTreeMap::new(),
        vec![bounds],
    );
    shown.colour = Some(name_of(mean));
    picture_of(canvas, mask, shown, Some(background), Style::Icon("pixel art"))
}
