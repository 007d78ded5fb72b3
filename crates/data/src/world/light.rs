//! The light of an hour and a weather: colours of the sky, sun, shade and haze.

use super::maths::{self, srgb};
use crate::random::Random;
use glam::Vec3;

/// Time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Time {
    Dawn,
    Sunrise,
    Day,
    Sunset,
    Night,
}

impl Time {
    pub const ALL: [Time; 5] = [Time::Dawn, Time::Sunrise, Time::Day, Time::Sunset, Time::Night];

    pub fn name(self) -> &'static str {
        match self {
            Time::Dawn => "dawn",
            Time::Sunrise => "sunrise",
            Time::Day => "day",
            Time::Sunset => "sunset",
            Time::Night => "night",
        }
    }
}

/// Weather.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weather {
    /// A few clouds at most.
    Clear,
    /// An overcast sky.
    Cloudy,
    Fog,
    Rain,
    Snow,
}

impl Weather {
    pub const ALL: [Weather; 5] = [
        Weather::Clear,
        Weather::Cloudy,
        Weather::Fog,
        Weather::Rain,
        Weather::Snow,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Weather::Clear => "clear",
            Weather::Cloudy => "cloudy",
            Weather::Fog => "fog",
            Weather::Rain => "rain",
            Weather::Snow => "snow",
        }
    }
}

/// Light on a scene. Colours are linear.
#[derive(Debug, Clone, Copy)]
pub struct Light {
    pub time: Time,
    pub weather: Weather,
    /// Towards the sun or moon, as things are lit (not where the disc stands in the picture).
    pub direction: Vec3,
    pub sun: Vec3,
    /// From above, from below, and from the viewer's side.
    pub sky: Vec3,
    pub bounce: Vec3,
    pub fill: Vec3,
    /// Share lost to `fog` grows with 1 - exp(-haze * distance).
    pub haze: f32,
    pub fog: Vec3,
    /// Radius of a shadow's soft edge, in samples of the light's map.
    pub softness: f32,
    pub zenith: Vec3,
    pub middle: Vec3,
    pub horizon: Vec3,
    /// Where the disc stands: fraction of the width, and height above the horizon as a fraction of the sky.
    pub disc: Option<(f32, f32)>,
    pub disc_colour: Vec3,
}

/// Zenith, middle and horizon of the sky, the sun's colour and strength, the sky's strength, and how high the disc stands.
type Hour = (Vec3, Vec3, Vec3, Vec3, f32, f32, f32);

fn hour(time: Time, random: &mut Random) -> Hour {
    match time {
        Time::Day => (
            srgb(28, 92, 190),
            srgb(92, 164, 230),
            srgb(196, 224, 240),
            srgb(255, 246, 228),
            1.05,
            0.55,
            random.range(0.62, 0.95),
        ),
        Time::Dawn => (
            srgb(58, 76, 136),
            srgb(158, 140, 184),
            srgb(248, 196, 184),
            srgb(255, 214, 200),
            0.62,
            0.46,
            random.range(0.05, 0.16),
        ),
        Time::Sunrise => (
            srgb(72, 116, 186),
            srgb(222, 178, 158),
            srgb(255, 212, 136),
            srgb(255, 204, 132),
            0.9,
            0.45,
            random.range(0.08, 0.26),
        ),
        Time::Sunset => (
            srgb(46, 40, 104),
            srgb(204, 88, 92),
            srgb(255, 150, 62),
            srgb(255, 158, 84),
            0.85,
            0.36,
            random.range(0.03, 0.2),
        ),
        Time::Night => (
            srgb(6, 10, 34),
            srgb(16, 28, 68),
            srgb(40, 58, 104),
            srgb(192, 206, 250),
            0.36,
            0.24,
            random.range(0.45, 0.85),
        ),
    }
}

impl Light {
    /// The light of an hour and a weather, its hues and the sun's place varied by `random`.
    pub fn outdoors(time: Time, weather: Weather, random: &mut Random) -> Self {
        let side = random.range(0.12, 0.88);
        let (zenith, middle, horizon, sun, strength, sky, height) = hour(time, random);
        let jitter = Vec3::new(
            random.range(0.88, 1.12),
            random.range(0.92, 1.08),
            random.range(0.88, 1.12),
        );
        let mut light = Self {
            time,
            weather,
            direction: Vec3::Y,
            sun: sun * strength,
            sky: middle.lerp(horizon, 0.35) / maths::luminance(middle.lerp(horizon, 0.35)).max(0.02) * sky,
            bounce: Vec3::splat(sky * 0.45) * sun,
            fill: if time == Time::Night {
                Vec3::new(0.10, 0.11, 0.15)
            } else {
                Vec3::splat(0.10)
            },
            haze: 0.0,
            fog: horizon,
            softness: 3.0,
            zenith: zenith * jitter,
            middle: middle * jitter,
            horizon: horizon * jitter,
            disc: Some((side, height)),
            disc_colour: match time {
                Time::Day => srgb(255, 252, 236) * 1.6,
                Time::Night => srgb(244, 244, 228),
                Time::Sunset => srgb(255, 220, 150) * 1.5,
                _ => srgb(255, 236, 190) * 1.5,
            },
        };
        // Skylight is never as blue as the sky itself: half of it is white.
        let grey = Vec3::splat(maths::luminance(light.sky));
        light.sky = light.sky.lerp(grey, if time == Time::Night { 0.45 } else { 0.55 });
        let tilt = match time {
            Time::Day => random.range(0.85, 1.4),
            Time::Night => random.range(0.8, 1.2),
            _ => random.range(0.42, 0.62),
        };
        light.direction = Vec3::new(
            (side - 0.5) * 2.6 + random.range(-0.15, 0.15),
            tilt,
            random.range(0.25, 0.8),
        )
        .normalize_or(Vec3::Y);
        light.under(weather, random);
        light.fog = light.horizon;
        light
    }

    /// Greys the sky and softens the light.
    fn under(&mut self, weather: Weather, random: &mut Random) {
        let (grey, dim, sun) = match weather {
            Weather::Clear => return,
            _ if self.time == Time::Night && weather != Weather::Rain => (0.62, 1.25, 0.6),
            Weather::Cloudy => (0.88, 0.95, 0.38),
            Weather::Fog => (0.80, 1.05, 0.22),
            Weather::Rain if self.time == Time::Night => (0.75, 1.35, 0.6),
            Weather::Rain => (0.88, 0.66, 0.16),
            Weather::Snow => (0.90, 1.0, 0.24),
        };
        let tone = Vec3::new(0.92, 0.98, 1.06);
        let fade = |c: Vec3, level: f32| c.lerp(tone * maths::luminance(c).max(0.006) * level, grey);
        // An overcast sky is flatter: its top nearly as bright as its foot.
        let mean = (self.zenith + self.middle + self.horizon) / 3.0;
        self.zenith = fade(self.zenith.lerp(mean, 0.6), dim * 0.92);
        self.middle = fade(self.middle.lerp(mean, 0.4), dim);
        self.horizon = fade(self.horizon.lerp(mean, 0.3), dim * 1.02);
        let lost = self.sun * (1.0 - sun);
        self.sun *= sun;
        self.sky = fade(self.sky, 1.0) * dim + Vec3::splat(maths::luminance(lost) * 0.32 * dim);
        self.bounce = fade(self.bounce, 1.0);
        self.softness = 7.0;
        self.disc = None;
        if weather == Weather::Fog {
            self.haze = random.range(0.04, 0.075);
        }
    }

    /// Lamps of a room or a studio.
    pub fn indoors(random: &mut Random) -> Self {
        let warm = random.range(0.0, 1.0);
        let side = if random.chance(0.5) { 1.0 } else { -1.0 };
        let white = Vec3::ONE;
        Self {
            time: Time::Day,
            weather: Weather::Clear,
            direction: Vec3::new(
                side * random.range(0.35, 0.95),
                random.range(0.95, 1.3),
                random.range(0.35, 0.9),
            )
            .normalize_or(Vec3::Y),
            sun: Vec3::new(1.0, 0.96 - 0.03 * warm, 0.92 - 0.10 * warm) * 0.82,
            sky: Vec3::new(0.97, 0.99, 1.03) * 0.50,
            bounce: white * 0.30,
            fill: white * 0.13,
            haze: 0.0,
            fog: white,
            softness: 6.0,
            zenith: white,
            middle: white,
            horizon: white,
            disc: None,
            disc_colour: white,
        }
    }

    /// What falls on a level floor: a material's colour times this is how it looks.
    pub fn on_floor(&self) -> Vec3 {
        self.sun * self.direction.y.max(0.0) + self.sky + self.fill * 0.3
    }

    /// What falls on something with this normal, without shadows.
    #[inline]
    pub fn on(&self, normal: Vec3) -> Vec3 {
        let up = normal.y * 0.5 + 0.5;
        self.sun * normal.dot(self.direction).max(0.0) + self.sky * up + self.bounce * (1.0 - up)
    }

    pub fn is_night(&self) -> bool {
        self.time == Time::Night
    }

    /// Lamps are lit: at night, and now and then in the half-light.
    pub fn lamps(&self) -> f32 {
        match self.time {
            Time::Night => 1.0,
            Time::Sunset => 0.55,
            Time::Dawn => 0.45,
            Time::Sunrise => 0.2,
            Time::Day => 0.0,
        }
    }
}
