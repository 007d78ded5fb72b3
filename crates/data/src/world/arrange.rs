//! Where things stand to each other: sizes, rows, pairs, stacks.

use super::World;
use super::camera::Camera;
use super::cast::{Cast, turned_bounds};
use super::catalogue::{Placement, Size};
use super::facts::Relation;
use super::place::Place;
use super::room::{RoomKind, WALL_Z};
use super::set::DISTANCE;
use super::shade::Ground;
use super::solid::Solids;
use super::view::View;
use crate::random::Random;
use glam::Vec3;

/// Things with a level top that others may stand on.
const BASES: [&str; 22] = [
    "table",
    "wooden table",
    "coffee table",
    "desk",
    "crate",
    "wooden crate",
    "cardboard box",
    "box",
    "barrel",
    "stool",
    "wooden stool",
    "chest of drawers",
    "nightstand",
    "side table",
    "washing machine",
    "refrigerator",
    "microwave",
    "bench",
    "tree stump",
    "dresser",
    "round table",
    "package",
];

/// Relative size of a thing beside others: real proportions, compressed so that the small one stays visible.
fn relative(size: Size) -> f32 {
    match size {
        Size::Tiny => 0.5,
        Size::Small => 0.68,
        Size::Medium => 1.0,
        Size::Large => 1.3,
        Size::Huge => 1.6,
    }
}

fn stands(placement: Placement) -> bool {
    matches!(placement, Placement::Ground | Placement::Table | Placement::Held)
}

/// Two things that may be seen together.
pub(super) fn pair(world: &World, noun: &str, random: &mut Random) -> Vec<Cast> {
    let mut first = Cast::partner(world, noun, random);
    for _ in 0..20 {
        if stands(world.catalogue.models[first.models[0]].placement) {
            break;
        }
        let other = world.vocabulary.draw(random).to_owned();
        first = Cast::partner(world, &other, random);
    }
    let (noun, size) = (first.noun.clone(), first.size(world) as i32);
    let mut second = None;
    for attempt in 0..60 {
        let other = world.vocabulary.draw(random).to_owned();
        let cast = Cast::partner(world, &other, random);
        let model = &world.catalogue.models[cast.models[0]];
        let near = (model.size as i32 - size).abs() <= 1 + attempt / 30;
        if other != noun && stands(model.placement) && near {
            second = Some(cast);
            break;
        }
    }
    let second = second.unwrap_or_else(|| {
        let any = world.vocabulary.draw(random).to_owned();
        Cast::partner(world, &any, random)
    });
    vec![first, second]
}

/// How the first lies to the second; "on top of" swaps in a thing with a level top.
pub(super) fn relation(world: &World, casts: &mut [Cast], random: &mut Random) -> Relation {
    let small = casts[0].size(world) <= Size::Medium;
    if small && random.chance(0.2) {
        let bases: Vec<&str> = BASES
            .into_iter()
            .filter(|b| world.vocabulary.models(b).is_some() && *b != casts[0].noun)
            .collect();
        if let Some(base) = random.pick(&bases) {
            casts[1] = Cast::partner(world, base, random);
            return Relation::OnTopOf;
        }
    }
    let options = [
        Relation::NextTo,
        Relation::NextTo,
        Relation::LeftOf,
        Relation::RightOf,
        Relation::InFrontOf,
        Relation::Behind,
    ];
    options[random.below(options.len())]
}

/// A place where both may be.
pub(super) fn place_for_pair(world: &World, casts: &[Cast], random: &mut Random) -> Place {
    let sizes = [casts[0].size(world), casts[1].size(world)];
    let largest = sizes[0].max(sizes[1]);
    let both_table = casts
        .iter()
        .all(|c| world.catalogue.models[c.models[0]].placement != Placement::Ground);
    if both_table && largest <= Size::Small && random.chance(0.7) {
        return Place::Table;
    }
    let indoors = casts.iter().any(|c| {
        let category = world.catalogue.models[c.models[0]].category.as_str();
        matches!(category, "furniture" | "appliance" | "bathroom" | "electronics")
    });
    if largest <= Size::Medium && random.chance(if indoors { 0.7 } else { 0.15 }) {
        return Place::Room(RoomKind::Plain);
    }
    let places = [
        Place::Hills,
        Place::Lake,
        Place::SnowyMountains,
        Place::Forest,
        Place::Desert,
        Place::Beach,
        Place::FlowerField,
        Place::Skyline,
        Place::Sea,
    ];
    places[random.below(places.len())]
}

/// One copy's measures at scale 1.
struct Body {
    wide: f32,
    tall: f32,
    deep: f32,
    relative: f32,
}

fn body(world: &World, cast: &Cast, copy: usize) -> Body {
    let (low, high) = turned_bounds(world.catalogue.mesh(cast.models[copy]), cast.turn(world, copy));
    let e = high - low;
    Body {
        wide: e.x,
        tall: e.y.max(0.02),
        deep: e.z,
        relative: relative(cast.size(world)),
    }
}

/// Stands everything in the picture. `foot`: the row where things at the front stand.
pub(super) fn place_all(
    world: &World,
    casts: &mut [Cast],
    relation: Option<Relation>,
    place: Place,
    camera: &Camera,
    view: &View,
    foot: f32,
    solids: &mut Solids,
    random: &mut Random,
) -> Ground {
    // Units of the world that the picture spans at the things' distance.
    let per_px = DISTANCE / view.focal_px;
    let (span, up) = (view.width as f32 * per_px, (foot - 0.07 * view.height as f32) * per_px);
    let tall = random.range(0.44, 0.64) * view.height as f32 * per_px;
    let mut shrink = 1.0;
    loop {
        let room = Room {
            span,
            up,
            tall,
            per_px,
            shrink,
        };
        // Every attempt draws the same numbers.
        let mut draws = random.clone();
        let ground = match relation {
            Some(Relation::OnTopOf) => stack(world, casts, &room, solids, &mut draws),
            Some(relation) => beside(world, casts, relation, &room, solids, &mut draws),
            None => row(world, &mut casts[0], place, camera, view, &room, solids, &mut draws),
        };
        // Near parts look larger than measured: what does not fit is made smaller.
        let fits = casts
            .iter()
            .flat_map(|cast| &cast.objects)
            .filter_map(|object| solids.projected_box(camera, *object))
            .all(|[l, t, r, b]| {
                let (w, h) = (view.width as f32, view.height as f32);
                l > 0.02 * w && r < 0.98 * w && t > 0.03 * h && b < 0.975 * h
            });
        if fits || shrink < 0.45 {
            *random = draws;
            return ground;
        }
        shrink *= 0.88;
        solids.clear();
        for cast in casts.iter_mut() {
            cast.objects.clear();
        }
    }
}

/// Lengths of the picture in world units at the things' distance.
struct Room {
    span: f32,
    /// From the foot row to near the top.
    up: f32,
    /// Wanted height of what is shown.
    tall: f32,
    per_px: f32,
    /// Below 1 when the first attempt did not fit.
    shrink: f32,
}

/// One thing, or several of one noun in a row.
fn row(
    world: &World,
    cast: &mut Cast,
    place: Place,
    camera: &Camera,
    view: &View,
    room: &Room,
    solids: &mut Solids,
    random: &mut Random,
) -> Ground {
    let count = cast.models.len();
    let bodies: Vec<Body> = (0..count).map(|copy| body(world, cast, copy)).collect();
    let model = &world.catalogue.models[cast.models[0]];
    let widest = bodies.iter().map(|b| b.wide.max(b.deep * 0.55)).fold(0.0, f32::max);
    let tallest = bodies.iter().map(|b| b.tall).fold(0.0, f32::max);
    let share = if count == 1 { 0.66 } else { 0.88 };
    let pitch = widest * 1.16;
    let total = pitch * (count - 1) as f32 + widest;
    let mut scale = (share * room.span / total).min(room.tall.min(room.up) / tallest) * room.shrink;
    let (centre_px, ground) = match (model.placement, place) {
        (_, Place::UnderWater | Place::Space) => (Some(random.range(0.42, 0.55)), Ground::None),
        (Placement::Sky, Place::Studio) => (None, Ground::Floor),
        (Placement::Sky, _) => {
            scale *= 0.8;
            (Some(random.range(0.28, 0.40)), Ground::None)
        }
        (Placement::Wall, Place::Room(_)) => {
            scale *= 1.1;
            (Some(random.range(0.26, 0.36)), Ground::None)
        }
        (Placement::Water, Place::Sea | Place::Lake | Place::PineLake) => (
            None,
            Ground::Water {
                ripple: random.range(0.15, 0.6),
            },
        ),
        _ => (None, Ground::Floor),
    };
    let z = if model.placement == Placement::Wall && matches!(place, Place::Room(_)) {
        WALL_Z + 0.08
    } else {
        0.0
    };
    if z < 0.0 {
        cast.yaws.fill(0.0);
    }
    let free = (room.span * 0.92 - total * scale).max(0.0) * 0.5;
    let middle = if count == 1 {
        random.range(-0.55, 0.55) * free
    } else {
        0.0
    };
    for (copy, own) in bodies.iter().enumerate() {
        let x = middle + (copy as f32 - (count - 1) as f32 * 0.5) * pitch * scale;
        let jitter = if count > 1 {
            random.range(-0.10, 0.10) * own.deep.max(0.3) * scale
        } else {
            0.0
        };
        let mut y = 0.0;
        if let Some(centre) = centre_px {
            let wander = if count > 1 { random.range(-0.05, 0.05) } else { 0.0 };
            let row = (centre + wander) * view.height as f32;
            y = camera.eye.y
                - (row - view.horizon_px) * room.per_px * (DISTANCE - z) / DISTANCE
                - own.tall * scale * 0.5;
        } else if matches!(ground, Ground::Water { .. }) {
            y = -0.10 * own.tall * scale;
        }
        let at = Vec3::new(x * (DISTANCE - z) / DISTANCE, y, z + jitter);
        cast.add(world, solids, copy, scale, at, copy as u8 + 1);
    }
    ground
}

/// Two things side by side, or one before the other.
fn beside(
    world: &World,
    casts: &mut [Cast],
    relation: Relation,
    room: &Room,
    solids: &mut Solids,
    random: &mut Random,
) -> Ground {
    let a = body(world, &casts[0], 0);
    let b = body(world, &casts[1], 0);
    let (sa, sb) = (a.relative, b.relative);
    let side = match relation {
        Relation::LeftOf => -1.0,
        Relation::RightOf => 1.0,
        _ if random.chance(0.5) => -1.0,
        _ => 1.0,
    };
    // Depth that the nearer thing comes forward and the farther one goes back.
    let (za, zb, near) = match relation {
        Relation::InFrontOf => (0.30, -0.85, 0.62),
        Relation::Behind => (-0.85, 0.30, 0.62),
        _ => (0.0, 0.0, 1.0),
    };
    // Measured as the picture shows them: what is nearer looks larger.
    let (closer_a, closer_b) = (DISTANCE / (DISTANCE - za), DISTANCE / (DISTANCE - zb));
    let wa = a.wide.max(a.deep * 0.4) * sa * closer_a;
    let wb = b.wide.max(b.deep * 0.4) * sb * closer_b;
    let gap = if near < 1.0 { 0.0 } else { 0.10 * (wa + wb) };
    // The nearer one hides a third of the smaller one at most.
    let apart = if near < 1.0 {
        (wa + wb) * 0.5 - 0.32 * wa.min(wb)
    } else {
        (wa + wb) * 0.5 + gap
    };
    let total = apart + (wa + wb) * 0.5;
    let highest = (a.tall * sa * closer_a).max(b.tall * sb * closer_b);
    let scale = (0.80 * room.span / total).min(room.tall.min(room.up) * 1.02 / highest) * room.shrink;
    // The pair's middle is the picture's middle.
    let shift = (wa - wb) * 0.25 * side * scale;
    let xa = (side * apart * 0.5 * scale - shift) / closer_a;
    let xb = (-side * apart * 0.5 * scale - shift) / closer_b;
    casts[0].add(world, solids, 0, sa * scale, Vec3::new(xa, 0.0, za), 1);
    casts[1].add(world, solids, 0, sb * scale, Vec3::new(xb, 0.0, zb), 2);
    Ground::Floor
}

/// The first on top of the second.
fn stack(world: &World, casts: &mut [Cast], room: &Room, solids: &mut Solids, random: &mut Random) -> Ground {
    let a = body(world, &casts[0], 0);
    let b = body(world, &casts[1], 0);
    let mesh = world.catalogue.mesh(casts[1].models[0]);
    // Height of the top around the middle.
    let top = mesh
        .positions
        .iter()
        .filter(|p| p.x.abs() < 0.2 && p.z.abs() < 0.2)
        .map(|p| p.y)
        .fold(0.0, f32::max);
    let top = if top > 0.0 { top } else { b.tall };
    let base = b.relative;
    let widest = b.wide.min(b.deep * 1.4) * base;
    let mut on = a.relative * 0.9;
    on = on
        .min(widest * 0.78 / a.wide.max(a.deep * 0.8))
        .min(1.3 * base * b.tall.max(b.wide) / a.tall);
    let highest = top * base + a.tall * on;
    let scale = ((room.tall * 1.25).min(room.up) / highest).min(0.7 * room.span / (b.wide * base).max(a.wide * on))
        * room.shrink;
    let x = random.range(-0.12, 0.12) * room.span;
    casts[0].add(world, solids, 0, on * scale, Vec3::new(x, top * base * scale, 0.0), 1);
    casts[1].add(world, solids, 0, base * scale, Vec3::new(x, 0.0, 0.0), 2);
    Ground::Floor
}
