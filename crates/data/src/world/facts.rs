//! What is true of a picture, for captions, the evaluator and the judge.

use super::light::{Time, Weather};
use super::place::Place;
use crate::colour::Colour;
use std::collections::BTreeMap;

/// From where a thing with a known front is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    Front,
    ThreeQuarter,
    Side,
    Back,
}

impl View {
    pub fn name(self) -> &'static str {
        match self {
            View::Front => "front",
            View::ThreeQuarter => "three-quarter",
            View::Side => "side",
            View::Back => "back",
        }
    }
}

/// How the first thing lies to the second, as the viewer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    NextTo,
    LeftOf,
    RightOf,
    InFrontOf,
    Behind,
    OnTopOf,
}

impl Relation {
    pub const ALL: [Relation; 6] = [
        Relation::NextTo,
        Relation::LeftOf,
        Relation::RightOf,
        Relation::InFrontOf,
        Relation::Behind,
        Relation::OnTopOf,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Relation::NextTo => "next to",
            Relation::LeftOf => "left of",
            Relation::RightOf => "right of",
            Relation::InFrontOf => "in front of",
            Relation::Behind => "behind",
            Relation::OnTopOf => "on top of",
        }
    }
}

/// How a picture is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// As rendered.
    Render,
    OilPainting,
    Watercolour,
    PixelArt,
    LineArt,
    Poster,
    /// An icon or emoji, with the word for its set.
    Icon(&'static str),
    Photo,
}

impl Style {
    /// Those that are filters over a rendered picture.
    pub const FILTERS: [Style; 5] = [
        Style::OilPainting,
        Style::Watercolour,
        Style::PixelArt,
        Style::LineArt,
        Style::Poster,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Style::Render => "3d render",
            Style::OilPainting => "oil painting",
            Style::Watercolour => "watercolour",
            Style::PixelArt => "pixel art",
            Style::LineArt => "line art",
            Style::Poster => "flat poster",
            Style::Icon(set) => set,
            Style::Photo => "photo",
        }
    }
}

/// One sort of thing in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Thing {
    /// The everyday word or the pack's noun.
    pub noun: String,
    /// More words that are true of it.
    pub synonyms: Vec<String>,
    /// A word that is true of it: `snowy`, `open`, `golden`.
    pub modifier: Option<String>,
    /// Its name in other languages, by code (de, es, fr, it, pt, ja, zh), where it is known.
    pub names: BTreeMap<String, String>,
    /// The noun is a plural without a number: a photograph of apples.
    pub several: bool,
    /// The pack's id of the model, or the set of an icon.
    pub model: String,
    pub count: usize,
    /// Given to it, or its own where it is clear.
    pub colour: Option<Colour>,
    /// The colour was given to it: a caption should say it.
    pub painted: bool,
    pub view: Option<View>,
    /// Object numbers in the mask, one for each of `count`.
    pub objects: Vec<u8>,
    /// Boxes (left, top, right, bottom) in fractions of the picture, one for each of `count`.
    pub boxes: Vec<[f32; 4]>,
}

impl Thing {
    /// Centres of the boxes, fractions of the picture.
    pub fn centres(&self) -> Vec<[f32; 2]> {
        self.boxes
            .iter()
            .map(|[l, t, r, b]| [(l + r) * 0.5, (t + b) * 0.5])
            .collect()
    }
}

/// Everything that is true of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub things: Vec<Thing>,
    /// Of the first thing to the second.
    pub relation: Option<Relation>,
    pub place: Place,
    /// A word that belongs to the place: the flowers' colour.
    pub detail: Option<&'static str>,
    /// Outdoors only.
    pub time: Option<Time>,
    pub weather: Option<Weather>,
    /// Of a plain background.
    pub background: Option<Colour>,
    pub style: Style,
}
