//! The things of a picture: which models, in which colours, seen from where.

use super::World;
use super::camera::Camera;
use super::catalogue::{Size, Tint};
use super::facts::{Thing, View as Seen};
use super::maths::srgb;
use super::mesh::Mesh;
use super::solid::{Paint, Pose, Solids, turn_x, turn_y, turn_z};
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
    pub yaws: Vec<f32>,
    pub objects: Vec<u8>,
}

/// Colours of coats and feathers.
const COATS: [Colour; 5] = [
    Colour::Brown,
    Colour::White,
    Colour::Black,
    Colour::Grey,
    Colour::Orange,
];

impl Cast {
    /// One thing of a noun.
    pub fn single(world: &World, noun: &str, random: &mut Random) -> Self {
        Self::new(world, noun, 1, true, random)
    }

    /// One of two things: seen from where it is best known, as its view is not said.
    pub fn partner(world: &World, noun: &str, random: &mut Random) -> Self {
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
            Tint::Near if model.category != "animal" && random.chance(0.5) => random.pick(&Colour::OBJECTS).copied(),
            Tint::Main | Tint::All if random.chance(0.55) => random.pick(&Colour::OBJECTS).copied(),
            _ => None,
        };
        let own = if model.tint == Tint::All {
            Some(crate::colour::name_of(model.main_rgb.map(|v| f32::from(v) / 255.0)))
        } else {
            own
        };
        let has_back = ["animal", "people", "vehicle", "creature", "dinosaur"].contains(&model.category.as_str());
        let (view, yaw) = if model.category == "sea life" {
            // Fish are known by their sides.
            let side = if random.chance(0.5) { 1.0 } else { -1.0 };
            (None, side * random.range(0.75, 1.6))
        } else {
            draw_view(model.front_yaw.is_some(), alone, has_back, random)
        };
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

    pub fn size(&self, world: &World) -> Size {
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
    pub fn turn(&self, world: &World, copy: usize) -> Mat3 {
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
    pub fn add(&mut self, world: &World, solids: &mut Solids, copy: usize, scale: f32, offset: Vec3, object: u8) {
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
            modifier: Some(model.modifier.clone()).filter(|m| {
                let same = self.models.iter().all(|i| *i == self.models[0]);
                !m.is_empty() && same && !(self.painted && Colour::from_name(m).is_some())
            }),
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

/// A view, and how far the front is turned from the viewer; any turn where the front is unknown. Only what is `alone`,
/// and worth seeing from there (`has_back`), is seen from the side or from behind.
fn draw_view(front_known: bool, alone: bool, has_back: bool, random: &mut Random) -> (Option<Seen>, f32) {
    if !front_known {
        return (None, random.range(0.0, std::f32::consts::TAU));
    }
    let side = if random.chance(0.5) { 1.0 } else { -1.0 };
    let at = random.unit();
    if alone && has_back && at < 0.16 {
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

pub(super) fn turned_bounds(mesh: &Mesh, turn: Mat3) -> (Vec3, Vec3) {
    mesh.positions
        .iter()
        .map(|p| turn * *p)
        .fold((Vec3::splat(f32::MAX), Vec3::splat(f32::MIN)), |(low, high), p| {
            (low.min(p), high.max(p))
        })
}
