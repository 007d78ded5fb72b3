//! Questions with one right answer, put to the judge of a picture.

use super::labels::{Labels, SIDES, STYLES};
use super::readers::{COLOURS_OF, GEOMETRY};
use super::seen::most;
use super::{Judge, Seen, relation};
use prima_data::Colour;
use prima_data::world::{Relation, Time, Weather};
use prima_tensor::{Tensor, no_grad};
use serde::{Deserialize, Serialize};

/// What a picture was asked to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// An everyday noun, by its number.
    Noun(usize),
    /// The colour of a noun, by `Colour::OBJECTS`.
    Colour {
        noun: usize,
        colour: usize,
    },
    Count(usize),
    Relation {
        first: usize,
        second: usize,
        relation: Relation,
    },
    Place(usize),
    Time(usize),
    Weather(usize),
    Style(usize),
}

/// Places that look alike where a caption may call one by the other's name.
const ALIKE: [[&str; 2]; 2] = [
    ["mountain lake", "mountain lake with a pine forest"],
    ["snowy mountains", "snow"],
];

/// Right answers of one question.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Score {
    pub pictures: usize,
    pub right: usize,
    /// Those where the right answer was among the first five: nouns only.
    pub within_five: usize,
}

impl Score {
    pub fn add(&mut self, rank: usize) {
        self.pictures += 1;
        self.right += usize::from(rank == 0);
        self.within_five += usize::from(rank < 5);
    }

    /// Share of right answers in per cent.
    pub fn percent(&self) -> f64 {
        100.0 * self.right as f64 / self.pictures.max(1) as f64
    }

    pub fn percent_within_five(&self) -> f64 {
        100.0 * self.within_five as f64 / self.pictures.max(1) as f64
    }
}

/// The judge's own score on held-out renders.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Ceiling {
    pub question: String,
    #[serde(flatten)]
    pub score: Score,
}

impl Asked {
    /// The question's name, by which ceilings are kept.
    pub fn question(&self) -> &'static str {
        match self {
            Self::Noun(_) => "noun",
            Self::Colour { .. } => "colour",
            Self::Count(_) => "count",
            Self::Relation { .. } => "relation",
            Self::Place(_) => "place",
            Self::Time(_) => "time of day",
            Self::Weather(_) => "weather",
            Self::Style(_) => "style",
        }
    }
}

impl Judge {
    /// How many answers the judge prefers to the right one: 0 is right.
    pub fn rank(&self, seen: &Seen, asked: &Asked) -> usize {
        let one = |right: bool| usize::from(!right);
        match asked {
            Asked::Noun(noun) => {
                let kinds = &self.answers.kinds[*noun];
                let order = seen.ranking();
                order.iter().position(|n| kinds.contains(n)).unwrap_or(order.len())
            }
            Asked::Colour { noun, colour } => one(self.colour(seen, *noun) == *colour),
            Asked::Count(count) => one(most(&seen.counts) + 1 == *count),
            Asked::Relation {
                first,
                second,
                relation,
            } => {
                let found = self.relation(seen, *first, *second);
                let beside = [Some(Relation::LeftOf), Some(Relation::RightOf)];
                one(found == Some(*relation) || (*relation == Relation::NextTo && beside.contains(&found)))
            }
            Asked::Place(place) => {
                let [asked, found] = [*place, most(&seen.places)].map(|p| self.answers.places[p].as_str());
                one(asked == found || ALIKE.iter().any(|pair| pair.contains(&asked) && pair.contains(&found)))
            }
            Asked::Time(time) => one(most(&seen.times) == *time),
            Asked::Weather(weather) => one(most(&seen.weathers) == *weather),
            Asked::Style(style) => one(most(&seen.styles) == *style),
        }
    }

    /// How the first noun lies to the second; `None` where one of them is not seen. What is next to something is left or
    /// right of it.
    pub fn relation(&self, seen: &Seen, first: usize, second: usize) -> Option<Relation> {
        let [a, b] = [first, second].map(|noun| self.evidence(seen, noun));
        let values = relation::geometry(&seen.things(), &a, &b)?;
        let input = Tensor::from_vec(values, &[1, GEOMETRY]);
        let scores = no_grad(|| self.readers.sides(&input));
        Some(SIDES[most(scores.data())])
    }

    /// The noun's colour, by `Colour::OBJECTS`.
    pub fn colour(&self, seen: &Seen, noun: usize) -> usize {
        let input = Tensor::from_vec(seen.colours_of(&self.answers.kinds[noun]), &[1, COLOURS_OF]);
        most(no_grad(|| self.readers.colours(&input)).data())
    }

    /// Where a noun is seen, by any of its kinds.
    pub(super) fn evidence(&self, seen: &Seen, noun: usize) -> Vec<f32> {
        seen.evidence(&self.answers.kinds[noun])
    }

    /// The right answer, in words.
    pub fn right_answer(&self, asked: &Asked) -> String {
        match asked {
            Asked::Noun(noun) => self.answers.nouns[*noun].clone(),
            Asked::Colour { colour, .. } => Colour::OBJECTS[*colour].name().to_owned(),
            Asked::Count(count) => count.to_string(),
            Asked::Relation {
                first,
                second,
                relation,
            } => format!(
                "{} {} {}",
                self.answers.nouns[*first],
                relation.name(),
                self.answers.nouns[*second]
            ),
            Asked::Place(place) => self.answers.places[*place].clone(),
            Asked::Time(time) => Time::ALL[*time].name().to_owned(),
            Asked::Weather(weather) => Weather::ALL[*weather].name().to_owned(),
            Asked::Style(style) => STYLES[*style].to_owned(),
        }
    }

    /// What the judge would answer, in words.
    pub fn answer(&self, seen: &Seen, asked: &Asked) -> String {
        match asked {
            Asked::Noun(_) => self.answers.nouns[seen.ranking()[0]].clone(),
            Asked::Colour { noun, .. } => Colour::OBJECTS[self.colour(seen, *noun)].name().to_owned(),
            Asked::Count(_) => (most(&seen.counts) + 1).to_string(),
            Asked::Relation { first, second, .. } => self
                .relation(seen, *first, *second)
                .map_or("not both there", Relation::name)
                .to_owned(),
            Asked::Place(_) => self.answers.places[most(&seen.places)].clone(),
            Asked::Time(_) => Time::ALL[most(&seen.times)].name().to_owned(),
            Asked::Weather(_) => Weather::ALL[most(&seen.weathers)].name().to_owned(),
            Asked::Style(_) => STYLES[most(&seen.styles)].to_owned(),
        }
    }
}

/// Every question that a render's facts answer.
pub(super) fn questions(labels: &Labels) -> Vec<Asked> {
    let mut asked = Vec::new();
    let is_render = labels.style == Some(0);
    if let [thing] = labels.things.as_slice() {
        if let Some(noun) = thing.noun {
            if thing.count == 1 && is_render {
                asked.push(Asked::Noun(noun));
            }
            if let Some(colour) = thing.colour.filter(|_| thing.painted && is_render) {
                asked.push(Asked::Colour { noun, colour });
            }
        }
        // Twos and threes are what a model is asked for.
        asked.extend(labels.count.filter(|c| [1, 2].contains(c)).map(|c| Asked::Count(c + 1)));
    }
    if let ([first, second], Some(relation)) = (labels.things.as_slice(), labels.relation)
        && let (Some(first), Some(second)) = (first.noun, second.noun)
    {
        asked.push(Asked::Relation {
            first,
            second,
            relation,
        });
    }
    asked.extend(labels.place.map(Asked::Place));
    asked.extend(labels.time.map(Asked::Time));
    asked.extend(labels.weather.map(Asked::Weather));
    asked.extend(labels.style.map(Asked::Style));
    asked
}
