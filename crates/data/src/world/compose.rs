//! Decides what a picture shows and lays it out: things, place, hour, weather, view, camera.

use super::arrange;
use super::camera::Camera;
use super::canvas::Canvas;
use super::caption;
use super::cast::Cast;
use super::catalogue::{Placement, Size};
use super::facts::{Facts, Style, Thing};
use super::flat::{self, Shown};
use super::ground::{Material, Surface};
use super::land::Stage;
use super::light::Light;
use super::maths::srgb;
use super::place::Place;
use super::room::RoomKind;
use super::set::{DISTANCE, Picture, Set, backdrop_colour, hour};
use super::shade::{self, Ground};
use super::solid::Solids;
use super::style;
use super::tongues;
use super::view::{Painter, View};
use super::{Kind, Sample, World};
use crate::random::Random;
use glam::Vec3;

/// Share of the captions that are in another language where the words are known.
const OTHER_LANGUAGES: f32 = 0.22;

/// One picture of a kind. `noun` names the first thing.
pub(super) fn compose(
    world: &World,
    kind: Kind,
    width: usize,
    height: usize,
    mut random: Random,
    noun: Option<&str>,
) -> Sample {
    let style = match kind {
        Kind::Styled => Style::FILTERS[random.below(Style::FILTERS.len())],
        _ => Style::Render,
    };
    let mut picture = picture(world, kind, style, (width, height), &mut random, noun);
    if style != Style::Render {
        picture.facts.style = style;
    }
    style::apply(style, &mut picture.canvas, &world.noise, &mut random);
    // A style has no words in the other languages yet.
    let foreign = style == Style::Render && random.chance(OTHER_LANGUAGES);
    let caption = foreign
        .then(|| tongues::write(&picture.facts, &mut random))
        .flatten()
        .unwrap_or_else(|| caption::write(&picture.facts, &mut random));
    Sample {
        rgb: picture.canvas.to_srgb(),
        width,
        height,
        mask: picture.mask,
        caption,
        facts: picture.facts,
    }
}

/// The picture of a kind, not yet drawn in its style.
pub(super) fn picture(
    world: &World,
    kind: Kind,
    style: Style,
    (width, height): (usize, usize),
    random: &mut Random,
    noun: Option<&str>,
) -> Picture {
    let kind = match kind {
        Kind::Styled => {
            let at = random.unit();
            // Lines of grass and waves alone say little.
            if at < 0.4 && style != Style::LineArt {
                Kind::Landscape
            } else if at < 0.75 {
                Kind::Object
            } else {
                Kind::CloseUp
            }
        }
        other => other,
    };
    let mut noun = noun;
    let shows_things = matches!(kind, Kind::CloseUp | Kind::Object | Kind::Count | Kind::Pair);
    if world.glossy_share > 0.0 && shows_things {
        let drawn = noun.unwrap_or_else(|| world.vocabulary.draw_shown(random));
        let has_model = world.vocabulary.models(drawn).is_some();
        if (random.chance(world.glossy_share) || !has_model)
            && let Some(picture) = glossy(world, kind, (width, height), random, drawn)
        {
            return picture;
        }
        noun = has_model.then_some(drawn);
    }
    match kind {
        Kind::Landscape if noun.is_none() => {
            let place = landscape(random);
            empty(world, place, style, width, height, random)
        }
        Kind::Of(place) => empty(world, place, style, width, height, random),
        Kind::CloseUp => close_up(world, width, height, random, noun),
        Kind::Icon => flat::icons(world, (width, height), random, noun),
        Kind::Figure => flat::figure(world, (width, height), random, noun),
        Kind::Photo => flat::photo(world, (width, height), random),
        Kind::Tile => flat::tile(world, (width, height), random),
        Kind::Pair => scene(world, width, height, random, noun, style, Group::Pair),
        Kind::Count => scene(world, width, height, random, noun, style, Group::Several),
        _ => scene(world, width, height, random, noun, style, Group::One),
    }
}

/// The picture of a kind that shows things, with glossy icons in the place of models; `None` where there is no such icon.
fn glossy(world: &World, kind: Kind, size: (usize, usize), random: &mut Random, noun: &str) -> Option<Picture> {
    let icons = world.icons.as_ref()?;
    let first = Shown::glossy(icons.glossy(noun, random)?);
    let plain = |random: &mut Random, second: Option<&Shown>, copies: &[usize]| {
        flat::on_plain_ground(world, size, random, &first, second, |random| {
            copies[random.below(copies.len())]
        })
    };
    Some(match kind {
        Kind::Object => flat::in_a_place(world, size, random, &first),
        Kind::Count => plain(random, None, &[2, 2, 2, 3, 3, 4]),
        Kind::Pair => {
            let second = (0..20).find_map(|_| {
                let other = world.vocabulary.draw_shown(random);
                (other != noun).then(|| icons.glossy(other, random)).flatten()
            });
            plain(random, Some(&Shown::glossy(second?)), &[1])
        }
        _ => plain(random, None, &[1]),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    One,
    Pair,
    Several,
}

/// A place for a landscape by itself: nature and towns more often than single rooms.
fn landscape(random: &mut Random) -> Place {
    let places = Place::LANDSCAPES;
    loop {
        let place = places[random.below(places.len())];
        let keep = match place {
            Place::Room(_) => 0.45,
            Place::Moon | Place::Rooftop => 0.4,
            Place::Lake | Place::PineLake | Place::SnowyMountains | Place::Beach => 1.0,
            _ => 0.85,
        };
        if random.chance(keep) {
            return place;
        }
    }
}

/// A landscape or place without things.
fn empty(world: &World, place: Place, style: Style, width: usize, height: usize, random: &mut Random) -> Picture {
    let (time, weather) = hour(place, style, random);
    let light = if place.is_outdoors() {
        Light::outdoors(time, weather, random)
    } else {
        Light::indoors(random)
    };
    let (low, high) = place.horizon(false);
    let view = View::new(width, height, random.range(low, high));
    let camera = Camera::level(
        random.range(0.58, 0.75),
        DISTANCE,
        view.focal_px,
        view.centre_x(),
        view.horizon_px,
    );
    let stage = Stage {
        camera,
        standing: false,
        edge_px: view.horizon_px + 0.14 * height as f32,
    };
    let mut canvas = Canvas::new(width, height);
    let mut scenery = Solids::default();
    let mut painter = Painter {
        canvas: &mut canvas,
        view,
        light: &light,
        noise: &world.noise,
        random: random.clone(),
    };
    let detail = place.paint(&mut painter, &stage, &world.catalogue, &mut scenery);
    let mut mask = vec![0; width * height];
    shade::render(
        &scenery,
        &camera,
        &light,
        place.ground(),
        painter.canvas,
        &mut mask,
        &world.noise,
    );
    if place.is_outdoors() {
        painter.mist();
        painter.fall();
    }
    *random = painter.random.clone();
    let outdoors = place.is_outdoors();
    Picture {
        canvas,
        mask,
        facts: Facts {
            things: Vec::new(),
            relation: None,
            place,
            detail,
            time: outdoors.then_some(time),
            weather: outdoors.then_some(weather),
            background: None,
            style: Style::Render,
        },
    }
}

/// One thing on a plain background, looked at from a little above.
fn close_up(world: &World, width: usize, height: usize, random: &mut Random, noun: Option<&str>) -> Picture {
    let noun = noun.unwrap_or_else(|| world.vocabulary.draw(random)).to_owned();
    let mut cast = Cast::single(world, &noun, random);
    let model = &world.catalogue.models[cast.models[0]];
    let lying = model.placement == Placement::Held && random.chance(0.75);
    let floating = matches!(model.placement, Placement::Sky | Placement::Wall) || model.category == "sea life";
    let tall = random.range(0.50, 0.72);
    let pitch = if lying {
        random.range(0.65, 1.05)
    } else if floating {
        random.range(0.05, 0.3)
    } else {
        random.range(0.12, 0.5)
    };
    cast.lying = lying;
    let mut solids = Solids::default();
    let view = View::new(width, height, 0.5);
    let centre = (
        view.centre_x() + random.range(-0.05, 0.05) * width as f32,
        height as f32 * random.range(0.48, 0.54),
    );
    let camera = cast.place_close(world, &mut solids, &view, pitch, centre, tall);
    let light = Light::indoors(random);
    let mut canvas = Canvas::new(width, height);
    let mut painter = Painter {
        canvas: &mut canvas,
        view,
        light: &light,
        noise: &world.noise,
        random: random.clone(),
    };
    let plain = random.chance(0.72) || floating;
    let table = !plain && model.size <= Size::Small && random.chance(0.6);
    let (place, background) = if plain {
        let colour = backdrop_colour(cast.main_rgb(world), random);
        let [r, g, b] = colour.background();
        painter.studio(srgb(r, g, b) * 0.96);
        (Place::Studio, Some(colour))
    } else if table {
        let surface = Surface::new(Material::Table, &mut painter.random);
        painter.ground(&surface, &camera, -1.0, 1.0, 0.0);
        painter.fade_floor(&camera, srgb(96, 86, 80));
        (Place::Table, None)
    } else {
        let material = match model.placement {
            Placement::Water => Material::Sand,
            _ if model.size >= Size::Medium => {
                [Material::Grass, Material::Stone, Material::Sand, Material::Snow][random.below(4)]
            }
            _ => [Material::Grass, Material::Stone, Material::Planks, Material::Sand][random.below(4)],
        };
        let surface = Surface::new(material, &mut painter.random);
        painter.ground(&surface, &camera, -1.0, 1.0, 0.0);
        painter.fade_floor(&camera, surface.base.lerp(srgb(190, 205, 220), 0.5));
        (Place::Plain(material), None)
    };
    *random = painter.random.clone();
    let ground = if floating { Ground::None } else { Ground::Floor };
    let mut mask = vec![0; width * height];
    shade::render(&solids, &camera, &light, ground, &mut canvas, &mut mask, &world.noise);
    let things = vec![cast.thing(world, &solids, &camera, width, height, true)];
    Picture {
        canvas,
        mask,
        facts: Facts {
            things,
            relation: None,
            place,
            detail: None,
            time: None,
            weather: None,
            background,
            style: Style::Render,
        },
    }
}

/// Where things of this placement and size are to be seen.
fn place_for(placement: Placement, size: Size, category: &str, random: &mut Random) -> Place {
    let of = |places: &[Place], random: &mut Random| places[random.below(places.len())];
    let outdoors = [
        Place::Hills,
        Place::Lake,
        Place::PineLake,
        Place::SnowyMountains,
        Place::Forest,
        Place::Desert,
        Place::Beach,
        Place::FlowerField,
        Place::Skyline,
        Place::Village,
        Place::Castle,
        Place::Street,
        Place::Sea,
    ];
    match (placement, category) {
        (Placement::Water, "sea life") => Place::UnderWater,
        (Placement::Water, _) => of(&[Place::Sea, Place::Lake, Place::PineLake], random),
        (Placement::Sky, "space") => Place::Space,
        (Placement::Sky, _) => of(
            &[
                Place::Hills,
                Place::Lake,
                Place::SnowyMountains,
                Place::Sea,
                Place::Skyline,
                Place::Desert,
                Place::Beach,
            ],
            random,
        ),
        (Placement::Wall, _) => Place::Room(RoomKind::Plain),
        (_, "space") => of(&[Place::Moon, Place::Moon, Place::Desert], random),
        (_, "furniture" | "appliance" | "bathroom" | "electronics") if random.chance(0.75) => {
            Place::Room(RoomKind::Plain)
        }
        (Placement::Table | Placement::Held, _) if random.chance(0.62) => Place::Table,
        (_, "animal") if size <= Size::Medium => of(
            &[
                Place::Hills,
                Place::Lake,
                Place::Forest,
                Place::SnowyMountains,
                Place::FlowerField,
                Place::Beach,
                Place::Rooftop,
                Place::Room(RoomKind::Living),
                Place::Room(RoomKind::Plain),
                Place::Street,
                Place::Village,
                Place::Desert,
                Place::Skyline,
            ],
            random,
        ),
        _ if size <= Size::Small && random.chance(0.5) => {
            of(&[Place::Table, Place::Room(RoomKind::Plain), Place::Rooftop], random)
        }
        _ if size >= Size::Large => {
            let place = of(&outdoors, random);
            if matches!(place, Place::Village | Place::Castle) {
                Place::Hills
            } else {
                place
            }
        }
        _ if random.chance(0.08) => Place::Rooftop,
        _ => of(&outdoors, random),
    }
}

/// Things in a place.
fn scene(
    world: &World,
    width: usize,
    height: usize,
    random: &mut Random,
    noun: Option<&str>,
    style: Style,
    group: Group,
) -> Picture {
    let noun = noun.unwrap_or_else(|| world.vocabulary.draw(random)).to_owned();
    let mut casts = match group {
        Group::One => vec![Cast::single(world, &noun, random)],
        Group::Several => vec![Cast::several(world, &noun, random)],
        Group::Pair => arrange::pair(world, &noun, random),
    };
    let relation = (group == Group::Pair).then(|| arrange::relation(world, &mut casts, random));
    let lead = &world.catalogue.models[casts[0].models[0]];
    let plain = group != Group::One && random.chance(0.3);
    let place = if plain {
        Place::Studio
    } else if casts.len() > 1 {
        arrange::place_for_pair(world, &casts, random)
    } else {
        place_for(lead.placement, lead.size, &lead.category, random)
    };
    let afloat = matches!(lead.placement, Placement::Water | Placement::Sky);
    let mut set = Set::new(world, place, style, (width, height), afloat, random, |random| {
        backdrop_colour(casts[0].main_rgb(world), random)
    });
    let (camera, view, light) = (set.camera, set.view, set.light);
    let mut solids = Solids::default();
    let ground = arrange::place_all(
        world,
        &mut casts,
        relation,
        place,
        &camera,
        &view,
        set.foot,
        &mut solids,
        random,
    );
    shade::render(
        &solids,
        &camera,
        &light,
        ground,
        &mut set.canvas,
        &mut set.mask,
        &world.noise,
    );
    set.fall(world, random);
    let things: Vec<Thing> = casts
        .iter()
        .map(|cast| cast.thing(world, &solids, &camera, width, height, group == Group::One))
        .collect();
    set.picture(things, relation)
}

impl Painter<'_> {
    /// A floor that loses itself in a calm tone towards the back.
    fn fade_floor(&mut self, camera: &Camera, tone: Vec3) {
        let (w, h) = (self.view.width, self.view.height);
        for y in 0..h {
            let far = camera
                .ground(camera.centre_px.0, y as f32 + 0.5)
                .map_or(f32::MAX, |(p, _)| -p.z);
            let share = super::maths::smoothstep(0.8, 3.4, far);
            for pixel in &mut self.canvas.pixels[y * w..(y + 1) * w] {
                *pixel += (tone - *pixel) * share;
            }
        }
    }
}
