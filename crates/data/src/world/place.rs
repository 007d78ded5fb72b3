//! The places that pictures show, what they may be called, and how each is painted.

use super::catalogue::Catalogue;
use super::ground::Material;
use super::land::Stage;
use super::light::{Time, Weather};
use super::room::RoomKind;
use super::shade::Ground;
use super::solid::Solids;
use super::town::furnish;
use super::view::Painter;
use glam::Vec3;

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Lake,
    PineLake,
    SnowyMountains,
    Hills,
    Forest,
    Desert,
    Sea,
    Beach,
    FlowerField,
    Skyline,
    Rooftop,
    Street,
    Castle,
    Village,
    Room(RoomKind),
    Table,
    Space,
    Moon,
    UnderWater,
    Aurora,
    Studio,
    /// Plain ground that fills the picture.
    Plain(Material),
}

use Place::{
    Aurora, Beach, Castle, Desert, FlowerField, Forest, Hills, Lake, Moon, PineLake, Plain, Rooftop, Room, Sea,
    Skyline, SnowyMountains, Space, Street, Studio, Table, UnderWater, Village,
};

impl Place {
    /// Every place that is a picture by itself.
    pub const LANDSCAPES: [Place; 24] = [
        Lake,
        PineLake,
        SnowyMountains,
        Hills,
        Forest,
        Desert,
        Sea,
        Beach,
        FlowerField,
        Skyline,
        Street,
        Castle,
        Village,
        Room(RoomKind::Living),
        Room(RoomKind::Bedroom),
        Room(RoomKind::Kitchen),
        Room(RoomKind::Bathroom),
        Room(RoomKind::Office),
        Room(RoomKind::Dining),
        Space,
        Moon,
        UnderWater,
        Aurora,
        Rooftop,
    ];

    /// The key of facts and of `prima data sheet --kind`.
    pub fn key(self) -> &'static str {
        match self {
            Lake => "mountain lake",
            PineLake => "mountain lake with a pine forest",
            SnowyMountains => "snowy mountains",
            Hills => "hills",
            Forest => "forest",
            Desert => "desert",
            Sea => "sea",
            Beach => "beach",
            FlowerField => "field of flowers",
            Skyline => "city skyline",
            Rooftop => "rooftop",
            Street => "street",
            Castle => "castle on a hill",
            Village => "village",
            Room(RoomKind::Plain) => "room",
            Room(RoomKind::Living) => "living room",
            Room(RoomKind::Bedroom) => "bedroom",
            Room(RoomKind::Kitchen) => "kitchen",
            Room(RoomKind::Bathroom) => "bathroom",
            Room(RoomKind::Office) => "office",
            Room(RoomKind::Dining) => "dining room",
            Table => "wooden table",
            Space => "space",
            Moon => "moon",
            UnderWater => "under water",
            Aurora => "northern lights",
            Studio => "plain background",
            Plain(Material::Grass) => "grass",
            Plain(Material::Sand) => "sand",
            Plain(Material::Snow) => "snow",
            Plain(Material::Planks) => "wooden floor",
            Plain(_) => "stone",
        }
    }

    /// Inside, in space or under water: no hour, no weather.
    pub fn is_outdoors(self) -> bool {
        !matches!(self, Room(_) | Table | Space | Moon | UnderWater | Studio | Plain(_))
    }

    /// What an object here stands on.
    pub fn ground(self) -> Ground {
        match self {
            Space | UnderWater => Ground::None,
            _ => Ground::Floor,
        }
    }

    /// Hours that suit the place.
    pub fn times(self) -> &'static [Time] {
        match self {
            Aurora => &[Time::Night],
            _ => &Time::ALL,
        }
    }

    /// Weathers that suit the place.
    pub fn weathers(self) -> &'static [Weather] {
        match self {
            Aurora => &[Weather::Clear],
            Desert => &[Weather::Clear, Weather::Cloudy],
            Beach | Sea | FlowerField => &[Weather::Clear, Weather::Cloudy, Weather::Fog, Weather::Rain],
            SnowyMountains => &[Weather::Clear, Weather::Cloudy, Weather::Fog, Weather::Snow],
            _ => &Weather::ALL,
        }
    }

    /// Height of the horizon in the picture from the top, as a range.
    pub fn horizon(self, standing: bool) -> (f32, f32) {
        match self {
            Space => (1.0, 1.0),
            UnderWater => (0.62, 0.70),
            Room(_) => (0.42, 0.50),
            Table => (0.36, 0.46),
            Street | Village => (0.44, 0.52),
            Forest => (0.46, 0.54),
            Castle => (0.60, 0.68),
            Beach | Sea if !standing => (0.40, 0.56),
            FlowerField | Hills | Desert if !standing => (0.36, 0.50),
            Skyline if !standing => (0.62, 0.74),
            Aurora if !standing => (0.66, 0.80),
            _ if standing => (0.42, 0.54),
            _ => (0.46, 0.58),
        }
    }

    /// Paints the place. Scenery that is solid goes into `solids`. Returns a word that this picture's caption needs (a
    /// flower's colour).
    pub fn paint(
        self,
        painter: &mut Painter,
        stage: &Stage,
        catalogue: &Catalogue,
        solids: &mut Solids,
    ) -> Option<&'static str> {
        match self {
            Lake => painter.lake(stage, false, false),
            PineLake => painter.lake(stage, true, false),
            SnowyMountains => painter.snowy_mountains(stage),
            Hills => painter.hills(stage),
            Forest => painter.forest(stage),
            Desert => painter.desert(stage),
            Sea => painter.sea(stage, Some(Material::Stone)),
            Beach => {
                painter.beach(stage);
                palms(painter, stage, catalogue, solids);
            }
            FlowerField => return Some(painter.flower_field(stage)),
            Skyline => painter.skyline(stage),
            Rooftop => painter.rooftop(stage),
            Street => painter.street(stage, catalogue, solids),
            Castle => painter.castle(stage, catalogue),
            Village => painter.village(stage, catalogue, solids),
            Room(kind) => painter.room(stage, kind, catalogue, solids),
            Table => painter.table(&stage.camera, stage.edge_px),
            Space => {
                painter.space(!stage.standing);
            }
            Moon => painter.moon_surface(stage),
            UnderWater => {
                painter.under_water(stage);
                reef(painter, stage, catalogue, solids);
            }
            Aurora => painter.lake(stage, true, true),
            Studio | Plain(_) => {}
        }
        None
    }
}

fn palms(painter: &mut Painter, stage: &Stage, catalogue: &Catalogue, solids: &mut Solids) {
    if !painter.random.chance(0.45) {
        return;
    }
    let side = if painter.random.chance(0.5) { -1.0 } else { 1.0 };
    for _ in 0..=painter.random.below(2) {
        let x = side * painter.random.range(1.1, 1.6);
        let z = -painter.random.range(0.2, 1.4);
        let size = painter.random.range(1.7, 2.4);
        let turn = painter.random.range(0.0, std::f32::consts::TAU);
        let edge = stage.camera.project(Vec3::new(x, 0.0, z)).y;
        if edge > stage.edge_px {
            furnish(
                solids,
                catalogue,
                &mut painter.random,
                &["palm tree"],
                Vec3::new(x, 0.0, z),
                size,
                turn,
            );
        }
    }
}

/// Fish and stones of the sea bed, when nothing else is to be seen there.
fn reef(painter: &mut Painter, stage: &Stage, catalogue: &Catalogue, solids: &mut Solids) {
    for _ in 0..3 {
        let x = painter.random.range(-1.6, 1.6);
        let z = -painter.random.range(0.4, 2.2);
        let size = painter.random.range(0.25, 0.5);
        furnish(
            solids,
            catalogue,
            &mut painter.random,
            &["rock"],
            Vec3::new(x, 0.0, z),
            size,
            x,
        );
    }
    if stage.standing {
        return;
    }
    let fish: &[&str] = &[
        "clownfish",
        "blue tang",
        "yellow tang",
        "butterflyfish",
        "goldfish",
        "royal gramma",
        "moorish idol",
        "fish",
    ];
    let one = [fish[painter.random.below(fish.len())]];
    for _ in 0..3 + painter.random.below(4) {
        let at = Vec3::new(
            painter.random.range(-1.1, 1.1),
            painter.random.range(0.45, 1.5),
            -painter.random.range(0.0, 1.6),
        );
        let size = painter.random.range(0.28, 0.46);
        let facing = if painter.random.chance(0.5) { 1.3 } else { -1.3 } + painter.random.range(-0.4, 0.4);
        furnish(solids, catalogue, &mut painter.random, &one, at, size, facing);
    }
}
