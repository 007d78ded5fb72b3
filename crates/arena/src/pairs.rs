//! What a voter sees next.

use crate::Error;
use crate::entrants::{Entrant, Painted};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// One pair in so many is a check.
const CHECK_EVERY: usize = 8;

/// What the two pictures of a pair have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing but the prompt: this is what is rated.
    Models,
    /// All: a voter who sees a difference guesses.
    SamePicture,
    /// The model; the seeds differ: a voter should take either side as often.
    SameModel,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Models => "models",
            Self::SamePicture => "same_picture",
            Self::SameModel => "same_model",
        }
    }

    pub(crate) fn of_str(text: &str) -> Option<Self> {
        [Self::Models, Self::SamePicture, Self::SameModel]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// Two pictures of one prompt, each with its model's name, the left one first.
#[derive(Clone, Debug)]
pub struct Pair {
    pub kind: Kind,
    pub prompt: String,
    pub sides: [(String, PathBuf); 2],
}

/// All pairs that can be asked about, and how often each prompt of two models was.
pub struct Pairs {
    entrants: Vec<Entrant>,
    /// Two models by number and a prompt that both have.
    contests: Vec<([usize; 2], String)>,
    asked: HashMap<([usize; 2], String), usize>,
}

impl Pairs {
    /// Errors where models have one name, or no two of them a prompt in common.
    pub fn of(entrants: Vec<Entrant>) -> Result<Self, Error> {
        let mut names = HashSet::new();
        if let Some(twice) = entrants.iter().find(|entrant| !names.insert(entrant.name.clone())) {
            return Err(Error::SameName(twice.name.clone()));
        }
        let prompts: Vec<HashSet<&str>> = entrants
            .iter()
            .map(|entrant| entrant.pictures.iter().map(|painted| painted.prompt.as_str()).collect())
            .collect();
        let mut contests = Vec::new();
        for a in 0..entrants.len() {
            for b in a + 1..entrants.len() {
                let mut common: Vec<&str> = prompts[a].intersection(&prompts[b]).copied().collect();
                common.sort_unstable();
                contests.extend(common.into_iter().map(|prompt| ([a, b], prompt.to_owned())));
            }
        }
        if contests.is_empty() {
            let each: Vec<String> = entrants
                .iter()
                .zip(&prompts)
                .map(|(entrant, prompts)| format!("{} has {} prompts", entrant.name, prompts.len()))
                .collect();
            return Err(Error::TooFew(format!("{}, and none is in two", each.join(", "))));
        }
        Ok(Self {
            entrants,
            contests,
            asked: HashMap::new(),
        })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entrants.iter().map(|entrant| entrant.name.as_str())
    }

    /// Prompts times pairs of models.
    pub fn contests(&self) -> usize {
        self.contests.len()
    }

    /// Of a vote that was cast, about two models that painted `prompt`.
    pub(crate) fn count(&mut self, kind: Kind, models: &[String; 2], prompt: &str) {
        let number = |name: &String| self.entrants.iter().position(|entrant| &entrant.name == name);
        if let (Kind::Models, [Some(a), Some(b)]) = (kind, models.each_ref().map(number)) {
            let key = ([a.min(b), a.max(b)], prompt.to_owned());
            *self.asked.entry(key).or_default() += 1;
        }
    }

    /// One of the contests that were asked about least, or now and then a check; sides at random.
    pub(crate) fn next(&self, random: &mut Rng) -> Pair {
        let mut pair = if random.usize(..CHECK_EVERY) == 0 {
            self.check(random)
        } else {
            self.contest(random)
        };
        if random.bool() {
            pair.sides.reverse();
        }
        pair
    }

    fn contest(&self, random: &mut Rng) -> Pair {
        let times = |contest: &&([usize; 2], String)| self.asked.get(*contest).copied().unwrap_or(0);
        let least = self.contests.iter().map(|contest| times(&contest)).min().unwrap_or(0);
        let rare: Vec<_> = self.contests.iter().filter(|contest| times(contest) == least).collect();
        let (models, prompt) = rare[random.usize(..rare.len())];
        // The seed's number is the same on both sides, as far as both have so many.
        let of = |model: usize| -> Vec<&Painted> { self.entrants[model].of_prompt(prompt).collect() };
        let painted = models.map(of);
        let which = random.usize(..painted[0].len().min(painted[1].len()));
        let side = |i: usize| (self.entrants[models[i]].name.clone(), painted[i][which].path.clone());
        Pair {
            kind: Kind::Models,
            prompt: prompt.clone(),
            sides: [side(0), side(1)],
        }
    }

    fn check(&self, random: &mut Rng) -> Pair {
        let (models, prompt) = &self.contests[random.usize(..self.contests.len())];
        let entrant = &self.entrants[models[random.usize(..2)]];
        let mut painted: Vec<&Painted> = entrant.of_prompt(prompt).collect();
        random.shuffle(&mut painted);
        let other = painted.get(1).filter(|_| random.bool());
        let kind = if other.is_some() {
            Kind::SameModel
        } else {
            Kind::SamePicture
        };
        let side = |painted: &Painted| (entrant.name.clone(), painted.path.clone());
        Pair {
            kind,
            prompt: prompt.clone(),
            sides: [side(painted[0]), side(other.unwrap_or(&painted[0]))],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrant(name: &str, prompts: &[&str]) -> Entrant {
        let painted = |(prompt, seed): (&&str, u64)| Painted {
            prompt: (*prompt).to_owned(),
            seed: Some(seed),
            path: PathBuf::from(format!("{name}/{prompt}-{seed}.png")),
        };
        Entrant {
            name: name.to_owned(),
            pictures: prompts
                .iter()
                .flat_map(|prompt| [(prompt, 0), (prompt, 1)])
                .map(painted)
                .collect(),
        }
    }

    #[test]
    fn sides_are_even_checks_are_one_in_eight_and_prompts_come_in_turn() {
        let entrants = vec![entrant("a", &["x", "y", "z"]), entrant("b", &["y", "z", "w"])];
        let mut pairs = Pairs::of(entrants).unwrap();
        assert_eq!(pairs.contests(), 2);
        let mut random = Rng::with_seed(3);
        let (mut left, mut kinds, mut prompts) = (0, HashMap::new(), HashMap::new());
        for _ in 0..4000 {
            let pair = pairs.next(&mut random);
            *kinds.entry(pair.kind.as_str()).or_insert(0) += 1;
            let same = pair.sides[0] == pair.sides[1];
            assert_eq!(same, pair.kind == Kind::SamePicture);
            if pair.kind == Kind::Models {
                left += usize::from(pair.sides[0].0 == "a");
                *prompts.entry(pair.prompt.clone()).or_insert(0i32) += 1;
                assert!((prompts["y"] - prompts.get("z").unwrap_or(&0)).abs() <= 1 || prompts.len() < 2);
                let models = pair.sides.map(|(model, _)| model);
                pairs.count(pair.kind, &models, &pair.prompt);
            }
        }
        let models = kinds["models"];
        assert!((3300..3700).contains(&models), "{kinds:?}");
        assert!((left as f64 / models as f64 - 0.5).abs() < 0.04, "{left} of {models}");
        assert!(kinds["same_picture"] > 150 && kinds["same_model"] > 150, "{kinds:?}");
    }

    #[test]
    fn models_without_a_common_prompt_and_of_one_name_are_refused() {
        let error = Pairs::of(vec![entrant("a", &["x"]), entrant("b", &["y"])])
            .err()
            .unwrap();
        assert!(error.to_string().contains("a has 1 prompts"), "{error}");
        let error = Pairs::of(vec![entrant("a", &["x"]), entrant("a", &["x"])])
            .err()
            .unwrap();
        assert!(error.is_usage() && error.to_string().contains("NAME=FOLDER"), "{error}");
    }
}
