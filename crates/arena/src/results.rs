//! What the votes come to.

use crate::ratings::{BradleyTerry, Game, Rating, bradley_terry, elo};
use crate::{Answer, Error, Kind, Vote, votes};
use serde::Serialize;
use statrs::distribution::{Binomial, DiscreteCDF as _};
use std::fmt::Write as _;

/// The seed of orders and resamples.
const SEED: u64 = 0;

/// Ratings of one question, in the order of [`Results::models`].
#[derive(Clone, Debug, Serialize)]
pub struct Question {
    pub elo: Vec<Rating>,
    /// None where a model never lost, or some were never compared.
    pub bradley_terry: Option<BradleyTerry>,
    /// Wins, losses and ties.
    pub games: Vec<[usize; 3]>,
}

/// What pairs of one model say of the voters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Answers about the same picture twice, and how many of them saw no difference.
    pub same_picture: [usize; 2],
    /// Of all answers that chose: left, and right.
    pub sides: [usize; 2],
    /// How likely sides at least so uneven are by chance, where voters look at the pictures alone.
    pub by_chance: f64,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    pub models: Vec<String>,
    pub votes: usize,
    pub voters: usize,
    /// Which follows the words.
    pub follows: Question,
    /// Which is prettier.
    pub prettier: Question,
    /// The mean of both questions' Elo, as ADD reports it.
    pub elo: Vec<f64>,
    pub check: Check,
}

impl Results {
    /// Of all who are named in a vote.
    pub fn of(votes: &[Vote]) -> Self {
        let mut models: Vec<String> = votes.iter().flat_map(|vote| vote.models.clone()).collect();
        models.sort();
        models.dedup();
        let mut voters: Vec<&str> = votes.iter().map(|vote| vote.voter.as_str()).collect();
        voters.sort_unstable();
        voters.dedup();
        let rated: Vec<&Vote> = votes.iter().filter(|vote| vote.kind == Kind::Models).collect();
        let [follows, prettier] =
            [|vote: &Vote| vote.follows, |vote: &Vote| vote.prettier].map(|answer| question(&models, &rated, answer));
        let both = follows.elo.iter().zip(&prettier.elo);
        Self {
            votes: rated.len(),
            voters: voters.len(),
            elo: both.map(|(a, b)| f64::midpoint(a.points, b.points)).collect(),
            check: check(votes),
            follows,
            prettier,
            models,
        }
    }

    /// A table for people, the best first.
    pub fn table(&self) -> String {
        let mut text = format!("{} votes of {} voters\n", self.votes, self.voters);
        for (title, question) in [("follows the words", &self.follows), ("prettier", &self.prettier)] {
            let _ = writeln!(
                text,
                "\n{title:24} {:>22} {:>22}   won lost same",
                "Elo", "Bradley-Terry"
            );
            let mut order: Vec<usize> = (0..self.models.len()).collect();
            order.sort_by(|a, b| question.elo[*b].points.total_cmp(&question.elo[*a].points));
            for model in order {
                let rated = question.bradley_terry.as_ref().map(|found| told(found.ratings[model]));
                let [won, lost, same] = question.games[model];
                let _ = writeln!(
                    text,
                    "{:24} {:>22} {:>22}   {won:3} {lost:4} {same:4}",
                    self.models[model],
                    told(question.elo[model]),
                    rated.unwrap_or_else(|| "one never lost".to_owned()),
                );
            }
        }
        let Check {
            same_picture: [shown, same],
            sides: [left, right],
            by_chance,
        } = self.check;
        let _ = write!(
            text,
            "\nthe same picture twice: seen in {same} of {shown} answers; sides: {left} left, {right} right (by chance: p = {by_chance:.2})"
        );
        text
    }

    /// Votes as a table with commas.
    pub fn csv(votes: &[Vote]) -> Result<Vec<u8>, Error> {
        votes::to_csv(votes)
    }
}

fn told(rating: Rating) -> String {
    format!("{:.0} ({:.0} to {:.0})", rating.points, rating.low, rating.high)
}

fn question(models: &[String], votes: &[&Vote], answer: fn(&Vote) -> Answer) -> Question {
    let number = |name: &String| models.iter().position(|model| model == name).unwrap_or(0);
    let mut counts = vec![[0; 3]; models.len()];
    let mut games = Vec::with_capacity(votes.len());
    for vote in votes {
        let players = vote.models.each_ref().map(number);
        let won = match answer(vote) {
            Answer::Left => [0, 1],
            Answer::Right => [1, 0],
            Answer::Same => [2, 2],
        };
        for (player, what) in players.into_iter().zip(won) {
            counts[player][what] += 1;
        }
        games.push(Game {
            players,
            score: answer(vote).score(),
        });
    }
    Question {
        elo: elo(models.len(), &games, SEED),
        bradley_terry: bradley_terry(models.len(), &games, SEED),
        games: counts,
    }
}

fn check(votes: &[Vote]) -> Check {
    let answers = |vote: &Vote| [vote.follows, vote.prettier];
    let null = votes.iter().filter(|vote| vote.kind == Kind::SamePicture);
    let seen: Vec<Answer> = null.flat_map(answers).collect();
    let count = |of: Answer| votes.iter().flat_map(answers).filter(|answer| *answer == of).count();
    let sides = [count(Answer::Left), count(Answer::Right)];
    Check {
        same_picture: [seen.len(), seen.iter().filter(|a| **a == Answer::Same).count()],
        sides,
        by_chance: by_chance(sides),
    }
}

/// Two-sided, of a fair coin.
fn by_chance([a, b]: [usize; 2]) -> f64 {
    let fewer = a.min(b) as u64;
    Binomial::new(0.5, (a + b) as u64).map_or(1.0, |coin| (2.0 * coin.cdf(fewer)).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uneven_sides_are_as_unlikely_as_a_coin_says() {
        assert!((by_chance([0, 5]) - 0.0625).abs() < 1e-9);
        assert!((by_chance([2, 8]) - 0.109375).abs() < 1e-9);
        assert_eq!((by_chance([5, 5]), by_chance([0, 0])), (1.0, 1.0));
    }

    #[test]
    fn votes_come_to_wins_by_model_and_not_by_side() {
        let vote = |left: &str, right: &str, follows, kind| Vote {
            unix_ms: 0,
            voter: "v".to_owned(),
            kind,
            prompt: "p".to_owned(),
            models: [left.to_owned(), right.to_owned()],
            pictures: [String::new(), String::new()],
            follows,
            prettier: Answer::Same,
            took_ms: 1,
        };
        let votes = [
            vote("a", "b", Answer::Left, Kind::Models),
            vote("b", "a", Answer::Right, Kind::Models),
            vote("b", "a", Answer::Left, Kind::Models),
            vote("a", "a", Answer::Right, Kind::SamePicture),
        ];
        let results = Results::of(&votes);
        assert_eq!(
            (results.models.as_slice(), results.votes),
            (&["a".to_owned(), "b".to_owned()][..], 3)
        );
        assert_eq!(results.follows.games, [[2, 1, 0], [1, 2, 0]]);
        assert_eq!(results.prettier.games, [[0, 0, 3], [0, 0, 3]]);
        assert_eq!((results.check.same_picture, results.check.sides), ([2, 1], [2, 2]));
        let rated = results.follows.bradley_terry.as_ref().unwrap();
        assert!((rated.ratings[0].points - rated.ratings[1].points - 400.0 * 2f64.log10()).abs() < 1e-4);
        assert!(results.table().contains("3 votes of 1 voters"));
    }
}
