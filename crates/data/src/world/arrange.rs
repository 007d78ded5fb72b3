//! Who is in a picture and where they stand: models, colours, views, sizes, relations.

use super::World;
use super::catalogue::{Placement, Size, Tint};
use super::compose::DISTANCE;
use super::facts::{Relation, Thing, View as Seen};
use super::maths::srgb;
use super::mesh::Mesh;
use super::place::Place;
use super::room::RoomKind;
use super::solid::{Camera, Ground, Paint, Pose, Solids, turn_x, turn_y, turn_z};
use super::view::View;
use crate::colour::Colour;
use crate::random::Random;
use glam::{Mat3, Vec3};

/// One sort of thing in a picture, before and after it is placed.
#[derive(Debug)]
pub(super) struct Cast {
    pub noun: String,
    /// One for each copy.
    pub models: Vec<usize>,
    pub colour: Option<Colour>,
    pub painted: bool,
    /// Lies on its flattest side.
    pub lying: bool,
    view: Option<Seen>,
    /// Turn away from the viewer of each copy's front, radians.
    yaws: Vec<f32>,
    objects: Vec<u8>,
}

/// Colours of coats and feathers.
const COATS: [Colour; 5] = [
    Colour::Brown,
    Colour::White,
    Colour::Black,
    Colour::Grey,
    Colour::Orange,
];

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

impl Cast {
    /// One thing of a noun.
    pub fn single(world: &World, noun: &str, random: &mut Random) -> Self {
        Self::new(world, noun, 1, true, random)
    }

    /// One of two things: seen from where it is best known, as its view is not said.
    fn partner(world: &World, noun: &str, random: &mut Random) -> Self {
        Self::new(world, noun, 1, false, random)
    }

    /// Two to four of a noun.
    pub fn several(world: &World, noun: &str, random: &mut Random) -> Self {
        let count = [2, 2, 2, 3, 3, 4][random.below(6)];
        Self::new(world, noun, count, false, random)
    }

    fn new(world: &World, noun: &str, count: usize, alone: bool, random: &mut Random) -> Self {
        let models = world.vocabulary.models(noun).unwrap_or(&[0]);
        let first = models[random.below(models.len())];
        let model = &world.catalogue.models[first];
        let mixed = random.chance(0.15);
        let chosen: Vec<usize> = (0..count)
            .map(|_| {
                if mixed && model.tint == Tint::No {
                    models[random.below(models.len())]
                } else {
                    first
                }
            })
            .collect();
        let same = chosen.iter().all(|m| *m == first);
        let own = model
            .colour
            .as_ref()
            .and_then(|name| Colour::from_name(&name.replace('-', " ")))
            .filter(|_| same);
        let repaint = match model.tint {
            Tint::Near if model.category == "animal" && random.chance(0.6) => random.pick(&COATS).copied(),
            Tint::Near if random.chance(0.5) => random.pick(&Colour::OBJECTS).copied(),
            Tint::Main | Tint::All if random.chance(0.55) => random.pick(&Colour::OBJECTS).copied(),
            _ => None,
        };
        let own = if model.tint == Tint::All {
            Some(crate::colour::name_of(model.main_rgb.map(|v| f32::from(v) / 255.0)))
        } else {
            own
        };
        let has_back = ["animal", "people", "vehicle", "creature", "dinosaur"].contains(&model.category.as_str());
        let (view, yaw) = draw_view(model.front_yaw.is_some(), alone, has_back, random);
        let yaws = (0..count)
            .map(|_| yaw + if count > 1 { random.range(-0.3, 0.3) } else { 0.0 })
            .collect();
        Self {
            noun: noun.to_owned(),
            models: chosen,
            colour: repaint.or(own),
            painted: repaint.is_some(),
            lying: false,
            view,
            yaws,
            objects: Vec::new(),
        }
    }

    pub fn main_rgb(&self, world: &World) -> [f32; 3] {
        match self.colour {
            Some(colour) if self.painted => colour.object(),
            _ => world.catalogue.models[self.models[0]]
                .main_rgb
                .map(|v| f32::from(v) / 255.0),
        }
    }

    fn size(&self, world: &World) -> Size {
        world.catalogue.models[self.models[0]].size
    }

    fn paint(&self, world: &World, copy: usize) -> Paint {
        let model = &world.catalogue.models[self.models[copy]];
        let [r, g, b] = model.main_rgb;
        let main = srgb(r, g, b);
        let target = self.colour.filter(|_| self.painted).map(|c| {
            let [r, g, b] = c.object().map(|v| (v * 255.0) as u8);
            srgb(r, g, b)
        });
        match (model.tint, target) {
            (Tint::All, Some(colour)) => Paint::Whole { colour },
            (Tint::All, None) => Paint::Whole { colour: main },
            (_, Some(colour)) => Paint::Masked {
                colour,
                reference: super::maths::luminance(main),
            },
            (_, None) => Paint::Own,
        }
    }

    /// The turn of one copy, without its size and place.
    fn turn(&self, world: &World, copy: usize) -> Mat3 {
        let model = &world.catalogue.models[self.models[copy]];
        let front = model.front_yaw.unwrap_or(0.0).to_radians();
        let upright = turn_y(self.yaws[copy] - front);
        if !self.lying {
            return upright;
        }
        let (low, high) = world.catalogue.mesh(self.models[copy]).bounds();
        turn_y(self.yaws[copy]) * flat(high - low)
    }

    /// Adds one copy; returns its object number.
    fn add(&mut self, world: &World, solids: &mut Solids, copy: usize, scale: f32, offset: Vec3, object: u8) {
        let turn = self.turn(world, copy);
        let mesh = world.catalogue.mesh(self.models[copy]);
        let (low, _) = turned_bounds(mesh, turn);
        let pose = Pose {
            turn,
            scale,
            offset: offset - Vec3::new(0.0, low.y * scale, 0.0),
        };
        solids.add(mesh, &pose, self.paint(world, copy), object);
        self.objects.push(object);
    }

    /// Places the only copy at the origin and returns a camera that frames it: `tall` of the picture's height at most,
    /// three quarters of its width at most.
    pub fn place_close(
        &mut self,
        world: &World,
        solids: &mut Solids,
        view: &View,
        pitch: f32,
        centre_px: (f32, f32),
        tall: f32,
    ) -> Camera {
        self.add(world, solids, 0, 1.0, Vec3::ZERO, 1);
        let (low, high) = turned_bounds(world.catalogue.mesh(self.models[0]), self.turn(world, 0));
        let at = Vec3::new(0.0, (high.y - low.y) * 0.5, 0.0);
        let unit = Camera::pitched(at, pitch, 3.4, 1.0, (0.0, 0.0));
        let [l, t, r, b] = solids.projected_box(&unit, 1).unwrap_or([-0.1, -0.1, 0.1, 0.1]);
        let focal = (tall * view.height as f32 / (b - t).max(1e-3)).min(0.74 * view.width as f32 / (r - l).max(1e-3));
        let centre = (centre_px.0 - focal * (l + r) * 0.5, centre_px.1 - focal * (t + b) * 0.5);
        Camera::pitched(at, pitch, 3.4, focal, centre)
    }

    /// The facts about it.
    pub fn thing(
        &self,
        world: &World,
        solids: &Solids,
        camera: &Camera,
        width: usize,
        height: usize,
        alone: bool,
    ) -> Thing {
        let model = &world.catalogue.models[self.models[0]];
        let (w, h) = (width as f32, height as f32);
        let boxes = self
            .objects
            .iter()
            .filter_map(|object| solids.projected_box(camera, *object))
            .map(|[l, t, r, b]| {
                [
                    (l / w).clamp(0.0, 1.0),
                    (t / h).clamp(0.0, 1.0),
                    (r / w).clamp(0.0, 1.0),
                    (b / h).clamp(0.0, 1.0),
                ]
            })
            .collect();
        let mut synonyms: Vec<String> = model.synonyms.iter().filter(|s| **s != self.noun).cloned().collect();
        if model.noun != self.noun
            && self
                .models
                .iter()
                .all(|m| world.catalogue.models[*m].noun == model.noun)
        {
            synonyms.insert(0, model.noun.clone());
        }
        Thing {
            noun: self.noun.clone(),
            synonyms,
            names: world.catalogue.names.get(&self.noun).cloned().unwrap_or_default(),
            several: false,
            model: model.id.clone(),
            count: self.models.len(),
            colour: self.colour,
            painted: self.painted,
            view: self.view.filter(|_| alone && !self.lying),
            objects: self.objects.clone(),
            boxes,
        }
    }
}

/// A view, and how far the front is turned from the viewer; any turn where the front is unknown. Only what is `alone` is
/// seen from the side, and only what is worth seeing from there (`has_back`) from behind.
fn draw_view(front_known: bool, alone: bool, has_back: bool, random: &mut Random) -> (Option<Seen>, f32) {
    if !front_known {
        return (None, random.range(0.0, std::f32::consts::TAU));
    }
    let side = if random.chance(0.5) { 1.0 } else { -1.0 };
    let at = random.unit();
    if alone && at < 0.16 {
        (Some(Seen::Side), side * random.range(1.36, 1.78))
    } else if alone && has_back && at < 0.24 {
        (Some(Seen::Back), std::f32::consts::PI + side * random.range(0.0, 0.45))
    } else if at < 0.46 {
        (Some(Seen::Front), side * random.range(0.0, 0.2))
    } else {
        (Some(Seen::ThreeQuarter), side * random.range(0.3, 0.7))
    }
}

/// The turn that lays a thing on its broadest side, its longest side across the picture.
fn flat(extent: Vec3) -> Mat3 {
    let e = extent.to_array();
    let thin = (0..3).min_by(|a, b| e[*a].total_cmp(&e[*b])).unwrap_or(1);
    let lay = match thin {
        0 => turn_z(std::f32::consts::FRAC_PI_2),
        2 => turn_x(std::f32::consts::FRAC_PI_2),
        _ => Mat3::IDENTITY,
    };
    let laid = (lay * extent).abs();
    if laid.z > laid.x {
        turn_y(std::f32::consts::FRAC_PI_2) * lay
    } else {
        lay
    }
}

fn turned_bounds(mesh: &Mesh, turn: Mat3) -> (Vec3, Vec3) {
    mesh.positions
        .iter()
        .map(|p| turn * *p)
        .fold((Vec3::splat(f32::MAX), Vec3::splat(f32::MIN)), |(low, high), p| {
            (low.min(p), high.max(p))
        })
}

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
    let second = second.unwrap_or_else(|| Cast::partner(world, "tree", random));
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
        -1.62
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
