//! An empty stage for things: a place painted with room in front, its camera and light.

use super::World;
use super::camera::Camera;
use super::canvas::Canvas;
use super::facts::{Facts, Relation, Style, Thing};
use super::land::Stage;
use super::light::{Light, Time, Weather};
use super::maths::srgb;
use super::place::Place;
use super::shade;
use super::solid::Solids;
use super::view::{Painter, View};
use crate::colour::Colour;
use crate::random::Random;

/// Distance of the level camera from the things.
pub(super) const DISTANCE: f32 = 2.6;

/// A picture before its style and caption.
pub(super) struct Picture {
    pub canvas: Canvas,
    pub mask: Vec<u8>,
    pub facts: Facts,
}

/// The hour and weather of a place: clear more often than not.
pub(super) fn hour(place: Place, style: Style, random: &mut Random) -> (Time, Weather) {
    let times = place.times();
    let time = if times.len() > 1 && random.chance(0.28) {
        Time::Day
    } else {
        times[random.below(times.len())]
    };
    let weathers = place.weathers();
    // A filter on top of fog leaves nothing to see.
    let weather = if style != Style::Render || random.chance(0.62) {
        Weather::Clear
    } else {
        weathers[random.below(weathers.len())]
    };
    (time, weather)
}

/// A background colour that the thing stands out from.
pub(super) fn backdrop_colour(own: [f32; 3], random: &mut Random) -> Colour {
    let clear: Vec<Colour> = Colour::BACKGROUNDS
        .into_iter()
        .filter(|c| {
            let rgb = c.background().map(|v| f32::from(v) / 255.0);
            let d: f32 = rgb.iter().zip(own).map(|(a, b)| (a - b) * (a - b)).sum();
            d.sqrt() > 0.42
        })
        .collect();
    // White and grey are what people ask for most.
    if random.chance(0.2) && clear.contains(&Colour::White) {
        return Colour::White;
    }
    random.pick(&clear).copied().unwrap_or(Colour::White)
}

/// An empty stage: the place is painted, the things are still to come.
pub(super) struct Set {
    pub canvas: Canvas,
    pub mask: Vec<u8>,
    pub light: Light,
    pub camera: Camera,
    pub view: View,
    /// Row where things at the front stand.
    pub foot: f32,
    place: Place,
    time: Time,
    weather: Weather,
    detail: Option<&'static str>,
    background: Option<Colour>,
}

impl Set {
    /// Paints a place with room for things. `afloat`: they float or fly, nothing is needed to stand on. `colour` chooses
    /// a plain background.
    pub fn new(
        world: &World,
        place: Place,
        style: Style,
        (width, height): (usize, usize),
        afloat: bool,
        random: &mut Random,
        colour: impl Fn(&mut Random) -> Colour,
    ) -> Self {
        let (time, weather) = hour(place, style, random);
        let outdoors = place.is_outdoors();
        let light = if outdoors {
            Light::outdoors(time, weather, random)
        } else {
            Light::indoors(random)
        };
        let (low, high) = place.horizon(true);
        let view = View::new(width, height, random.range(low, high));
        let h = height as f32;
        let foot = match place {
            Place::UnderWater => 0.86,
            Place::Studio => random.range(0.66, 0.78),
            _ => random.range(0.76, 0.87),
        } * h;
        let eye = (foot - view.horizon_px).max(0.08 * h) * DISTANCE / view.focal_px;
        let camera = Camera::level(eye, DISTANCE, view.focal_px, view.centre_x(), view.horizon_px);
        let near = random.range(0.28, 0.5);
        let near = if matches!(place, Place::Table | Place::Rooftop) {
            0.35
        } else {
            near
        };
        let stage = Stage {
            camera,
            standing: !afloat || place == Place::UnderWater,
            edge_px: view.horizon_px + (foot - view.horizon_px) * near,
        };
        let mut canvas = Canvas::new(width, height);
        let mut painter = Painter {
            canvas: &mut canvas,
            view,
            light: &light,
            noise: &world.noise,
            random: random.clone(),
        };
        let mut mask = vec![0; width * height];
        let (mut background, mut detail) = (None, None);
        if place == Place::Studio {
            let colour = colour(&mut painter.random);
            let [r, g, b] = colour.background();
            painter.studio(srgb(r, g, b) * 0.96);
            background = Some(colour);
        } else {
            let mut scenery = Solids::default();
            detail = place.paint(&mut painter, &stage, &world.catalogue, &mut scenery);
            shade::render(
                &scenery,
                &camera,
                &light,
                place.ground(),
                painter.canvas,
                &mut mask,
                &world.noise,
            );
            mask.fill(0);
            if outdoors {
                painter.mist();
            }
        }
        *random = painter.random.clone();
        Self {
            canvas,
            mask,
            light,
            camera,
            view,
            foot,
            place,
            time,
            weather,
            detail,
            background,
        }
    }

    /// Rain and snow in front of everything.
    pub fn fall(&mut self, world: &World, random: &mut Random) {
        if self.place.is_outdoors() {
            let mut painter = Painter {
                canvas: &mut self.canvas,
                view: self.view,
                light: &self.light,
                noise: &world.noise,
                random: random.clone(),
            };
            painter.fall();
            *random = painter.random.clone();
        }
    }

    pub fn picture(self, things: Vec<Thing>, relation: Option<Relation>) -> Picture {
        let outdoors = self.place.is_outdoors();
        Picture {
            canvas: self.canvas,
            mask: self.mask,
            facts: Facts {
                things,
                relation,
                place: self.place,
                detail: self.detail,
                time: outdoors.then_some(self.time),
                weather: outdoors.then_some(self.weather),
                background: self.background,
                style: Style::Render,
            },
        }
    }
}
