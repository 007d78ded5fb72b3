//! English phrases for places, hours and weathers.

use super::facts::Facts;
use super::ground::Material;
use super::light::{Time, Weather};
use super::place::Place;
use super::room::RoomKind;
use crate::random::Random;

pub(super) fn pick<'a>(options: &[&'a str], random: &mut Random) -> &'a str {
    random.pick(options).copied().unwrap_or_default()
}

/// Where a thing is that nature made.
fn in_nature(place: Place) -> Option<&'static [&'static str]> {
    Some(match place {
        Place::Lake => &[
            "by a mountain lake",
            "by a lake",
            "beside a lake in the mountains",
            "in front of a mountain lake",
        ],
        Place::PineLake => &[
            "by a lake with a pine forest",
            "by a mountain lake",
            "at a forest lake",
            "by a lake",
        ],
        Place::SnowyMountains => &[
            "in the snow",
            "in the snow in front of mountains",
            "in front of snowy mountains",
            "on snow",
        ],
        Place::Hills => &[
            "in a meadow",
            "on green hills",
            "on the grass",
            "in front of rolling hills",
            "in the countryside",
        ],
        Place::Forest => &["in a forest", "in the woods", "in a pine forest", "among pine trees"],
        Place::Desert => &["in the desert", "in front of sand dunes", "on desert sand"],
        Place::Sea => &["by the sea", "at the seaside", "in front of the ocean", "by the ocean"],
        Place::Beach => &[
            "on a beach",
            "on the beach",
            "on a sandy beach",
            "on the sand by the sea",
        ],
        Place::FlowerField => &[
            "in a field of {} flowers",
            "in a field of flowers",
            "among {} flowers",
            "in a flower meadow",
        ],
        _ => return None,
    })
}

/// Where a thing is that is none of [`in_nature`].
fn in_places(place: Place) -> &'static [&'static str] {
    match place {
        Place::Skyline => &[
            "in front of a city skyline",
            "in a city",
            "with a city skyline behind",
            "in front of skyscrapers",
        ],
        Place::Rooftop => &["on a rooftop", "on a roof above the city", "on a city rooftop"],
        Place::Street => &[
            "in a street",
            "on a city street",
            "on the road",
            "in the middle of a street",
        ],
        Place::Castle => &["in front of a castle", "near a castle on a hill"],
        Place::Village => &["in a village", "in front of a village"],
        Place::Room(RoomKind::Living) => &["in a living room"],
        Place::Room(RoomKind::Bedroom) => &["in a bedroom"],
        Place::Room(RoomKind::Kitchen) => &["in a kitchen"],
        Place::Room(RoomKind::Bathroom) => &["in a bathroom"],
        Place::Room(RoomKind::Office) => &["in an office"],
        Place::Room(RoomKind::Dining) => &["in a dining room"],
        Place::Room(RoomKind::Plain) => &["in a room", "indoors", "in a house"],
        Place::Table => &["on a wooden table", "on a table", "on a table top"],
        Place::Space => &["in space", "in outer space", "among the stars"],
        Place::Moon => &["on the moon", "on the surface of the moon"],
        Place::UnderWater => &["under water", "underwater", "in the sea", "in the ocean"],
        Place::Aurora => &["under the northern lights", "under an aurora"],
        Place::Studio => &[""],
        Place::Plain(Material::Grass) => &["on grass", "on the grass", "on a lawn"],
        Place::Plain(Material::Sand) => &["on sand", "on the sand"],
        Place::Plain(Material::Snow) => &["on snow", "in the snow"],
        Place::Plain(Material::Planks) => &["on a wooden floor", "on floorboards"],
        Place::Plain(_) => &["on stone", "on the ground"],
        _ => &[],
    }
}

/// Where a thing is: `on a beach`.
pub(super) fn place_words(facts: &Facts, random: &mut Random) -> String {
    let flowers = facts.detail.unwrap_or("colourful");
    let options = in_nature(facts.place).unwrap_or_else(|| in_places(facts.place));
    let afloat = facts.things.first().is_some_and(|t| {
        t.count > 0
            && matches!(facts.place, Place::Sea | Place::Lake | Place::PineLake)
            && t.view.is_none()
            && facts.afloat()
    });
    let options: &[&str] = match (afloat, facts.place) {
        (true, Place::Sea) => &["on the sea", "at sea", "on the ocean", "on the water"],
        (true, _) => &["on a lake", "on a mountain lake", "on the water"],
        _ => options,
    };
    pick(options, random).replace("{}", flowers)
}

/// A landscape that nature made.
fn nature(place: Place) -> Option<&'static [&'static str]> {
    Some(match place {
        Place::Lake => &[
            "a mountain lake",
            "a lake in front of mountains",
            "a lake in the mountains",
            "mountains reflected in a lake",
        ],
        Place::PineLake => &[
            "a mountain lake with a pine forest",
            "a lake with a pine forest",
            "a pine forest mirrored in a mountain lake",
            "a mountain lake surrounded by pine trees",
        ],
        Place::SnowyMountains => &[
            "snowy mountains",
            "snow-covered mountains",
            "a snowy mountain landscape",
            "mountains with snow and pine trees",
        ],
        Place::Hills => &[
            "rolling hills",
            "green hills",
            "a meadow with hills",
            "hilly countryside",
            "hills",
        ],
        Place::Forest => &["a pine forest", "a forest", "the woods", "a forest of pine trees"],
        Place::Desert => &["a desert", "sand dunes", "desert dunes", "sand dunes in the desert"],
        Place::Sea => &["the sea", "the ocean", "the open sea", "waves on the ocean"],
        Place::Beach => &["a beach", "a sandy beach", "a beach by the sea", "the seaside"],
        Place::FlowerField => &[
            "a field of {} flowers",
            "a field of flowers",
            "a meadow full of {} flowers",
            "{} flowers in a field",
        ],
        _ => return None,
    })
}

/// A landscape that is none of [`nature`].
fn places(place: Place) -> &'static [&'static str] {
    match place {
        Place::Skyline => &[
            "a city skyline",
            "a skyline",
            "a city by the water",
            "skyscrapers",
            "a city with skyscrapers",
        ],
        Place::Street => &["a street", "a city street", "a street with houses", "a town street"],
        Place::Castle => &["a castle on a hill", "a castle", "a castle on a green hill"],
        Place::Village => &[
            "a village",
            "a small village",
            "houses in a village",
            "a village with houses and trees",
        ],
        Place::Rooftop => &["a rooftop", "a city seen from a rooftop", "a flat roof above the city"],
        Place::Space => &[
            "a planet in space",
            "outer space with a planet",
            "a planet and stars",
            "space with a planet, stars and a nebula",
        ],
        Place::Moon => &[
            "the surface of the moon",
            "a moon landscape",
            "the moon with the earth in the sky",
        ],
        Place::UnderWater => &[
            "an underwater scene with fish",
            "fish under water",
            "the bottom of the sea with fish",
            "fish in the ocean",
        ],
        Place::Aurora => &[
            "northern lights",
            "the aurora borealis",
            "northern lights over a lake",
            "an aurora in the night sky",
        ],
        Place::Room(RoomKind::Living) => &[
            "a living room",
            "a living room with a couch",
            "the inside of a living room",
        ],
        Place::Room(RoomKind::Bedroom) => &["a bedroom", "a bedroom with a bed"],
        Place::Room(RoomKind::Kitchen) => &["a kitchen", "a kitchen with a fridge"],
        Place::Room(RoomKind::Bathroom) => &["a bathroom", "a bathroom with a bathtub"],
        Place::Room(RoomKind::Office) => &["an office", "an office with a desk", "a home office"],
        Place::Room(RoomKind::Dining) => &["a dining room", "a dining room with a table"],
        Place::Room(RoomKind::Plain) => &["a room"],
        Place::Table => &["a wooden table"],
        Place::Studio | Place::Plain(_) => &["a plain background"],
        _ => &[],
    }
}

/// A landscape as a noun phrase: `a mountain lake`.
pub(super) fn landscape_words(facts: &Facts, random: &mut Random) -> String {
    let flowers = facts.detail.unwrap_or("colourful");
    let options = nature(facts.place).unwrap_or_else(|| places(facts.place));
    pick(options, random).replace("{}", flowers)
}

/// `at sunset`; a plain day is seldom said.
pub(super) fn time_words(time: Time, random: &mut Random) -> &'static str {
    match time {
        Time::Day if random.chance(0.5) => "",
        Time::Day => pick(&["during the day", "in daylight", "by day", "in the daytime"], random),
        Time::Dawn => pick(
            &[
                "at dawn",
                "at dawn",
                "in dawn light",
                "in the early morning",
                "at daybreak",
            ],
            random,
        ),
        Time::Sunrise => pick(
            &[
                "at sunrise",
                "at sunrise",
                "in the morning sun",
                "in golden morning light",
            ],
            random,
        ),
        Time::Sunset => pick(
            &[
                "at sunset",
                "at sunset",
                "in sunset light",
                "in the evening",
                "in the evening sun",
                "sunset lighting",
            ],
            random,
        ),
        Time::Night => pick(&["at night", "at night", "by night", "in the moonlight"], random),
    }
}

/// `in the rain`, `under a cloudy sky`; a clear sky is seldom said.
pub(super) fn weather_words(weather: Weather, time: Time, random: &mut Random) -> &'static str {
    match weather {
        Weather::Clear if time == Time::Night && random.chance(0.2) => {
            pick(&["under a starry sky", "under the stars"], random)
        }
        Weather::Clear if time == Time::Day && random.chance(0.3) => pick(
            &[
                "on a sunny day",
                "in the sunshine",
                "under a blue sky",
                "on a clear day",
            ],
            random,
        ),
        Weather::Clear => "",
        Weather::Cloudy => pick(
            &[
                "under a cloudy sky",
                "on a cloudy day",
                "under an overcast sky",
                "under grey clouds",
            ],
            random,
        ),
        Weather::Fog => pick(&["in fog", "in the mist", "on a foggy day", "in thick fog"], random),
        Weather::Rain => pick(
            &["in the rain", "on a rainy day", "in heavy rain", "while it rains"],
            random,
        ),
        Weather::Snow => pick(
            &["while it snows", "in falling snow", "on a snowy day", "in a snowfall"],
            random,
        ),
    }
}
