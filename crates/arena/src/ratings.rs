//! Ratings of those who were compared two by two.

use fastrand::Rng;
use serde::Serialize;

/// Where everybody starts, and what a game moves at most (ADD, Sauer et al. 2023).
const START: f64 = 1000.0;
const K: f64 = 1.0;
/// Points that make a win ten times as likely as a loss.
const POINTS_A_DECADE: f64 = 400.0;
/// Orders, or resamples, of which an interval is made, and what share of them lies within.
const RESAMPLES: usize = 1000;
const WITHIN: f64 = 0.95;
/// Of strengths, in points, when the likelihood's greatest value counts as found.
const SETTLED: f64 = 1e-7;

/// Two players by number and what the first one got: 1 for a win, ½ where they are equal, 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Game {
    pub players: [usize; 2],
    pub score: f64,
}

/// A rating and the bounds between which 95 of 100 resamples put it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rating {
    pub points: f64,
    pub low: f64,
    pub high: f64,
}

/// Elo's, as ADD has it: start at 1000, K = 1, one game after the other. Since a rating depends on their order, it is the mean over a
/// thousand orders, and the bounds are those of a thousand resamples of the games.
pub fn elo(players: usize, games: &[Game], seed: u64) -> Vec<Rating> {
    let mut random = Rng::with_seed(seed);
    let mut shuffled = games.to_vec();
    let mut means = vec![0.0; players];
    for _ in 0..RESAMPLES {
        random.shuffle(&mut shuffled);
        for (mean, points) in means.iter_mut().zip(elo_in_order(players, &shuffled)) {
            *mean += points / RESAMPLES as f64;
        }
    }
    let resampled = (0..RESAMPLES).map(|_| elo_in_order(players, &resample(games, &mut random)));
    rated(&means, resampled.collect())
}

/// Of games in the order in which they were played.
pub fn elo_in_order(players: usize, games: &[Game]) -> Vec<f64> {
    let mut points = vec![START; players];
    for Game { players: [a, b], score } in games {
        let expected = 1.0 / (1.0 + 10f64.powf((points[*b] - points[*a]) / POINTS_A_DECADE));
        let moved = K * (score - expected);
        points[*a] += moved;
        points[*b] -= moved;
    }
    points
}

/// What Bradley and Terry's model says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BradleyTerry {
    pub ratings: Vec<Rating>,
    /// Resamples of a thousand for which there is no greatest likelihood, and which no bound counts.
    pub left_out: usize,
}

/// Ratings by maximum likelihood under `P(a beats b) = 1 / (1 + 10^((b - a) / 400))` (Bradley and Terry 1952), with a mean of 1000; a
/// game without a winner is half a win for either. `None` where the likelihood has no greatest value: where the players fall into two
/// groups of which one never lost to the other (Ford 1957).
pub fn bradley_terry(players: usize, games: &[Game], seed: u64) -> Option<BradleyTerry> {
    let points = likeliest(players, games)?;
    let mut random = Rng::with_seed(seed);
    let resampled: Vec<Vec<f64>> = (0..RESAMPLES)
        .filter_map(|_| likeliest(players, &resample(games, &mut random)))
        .collect();
    let left_out = RESAMPLES - resampled.len();
    Some(BradleyTerry {
        ratings: rated(&points, resampled),
        left_out,
    })
}

fn resample(games: &[Game], random: &mut Rng) -> Vec<Game> {
    (0..games.len()).map(|_| games[random.usize(..games.len())]).collect()
}

/// Each player's points with the bounds of `resampled`, which are of all players each.
fn rated(points: &[f64], resampled: Vec<Vec<f64>>) -> Vec<Rating> {
    let rating = |(player, &points): (usize, &f64)| {
        let mut each: Vec<f64> = resampled.iter().map(|points| points[player]).collect();
        each.sort_by(f64::total_cmp);
        let at = |share: f64| {
            each.get((share * each.len() as f64) as usize)
                .copied()
                .unwrap_or(points)
        };
        let outside = (1.0 - WITHIN) / 2.0;
        Rating {
            points,
            low: at(outside),
            high: at(1.0 - outside),
        }
    };
    points.iter().enumerate().map(rating).collect()
}

/// By Hunter's minorisation (2004): `p_i = W_i / sum_j n_ij / (p_i + p_j)` until nothing moves.
fn likeliest(players: usize, games: &[Game]) -> Option<Vec<f64>> {
    let mut won = vec![vec![0.0; players]; players];
    for Game { players: [a, b], score } in games {
        won[*a][*b] += score;
        won[*b][*a] += 1.0 - score;
    }
    if !all_beat_all(&won) {
        return None;
    }
    let wins: Vec<f64> = won.iter().map(|row| row.iter().sum()).collect();
    let mut strengths = vec![1.0f64; players];
    loop {
        let share = |i: usize| -> f64 {
            let met = (0..players).filter(|j| *j != i);
            met.map(|j| (won[i][j] + won[j][i]) / (strengths[i] + strengths[j]))
                .sum()
        };
        let mut next: Vec<f64> = (0..players).map(|i| wins[i] / share(i)).collect();
        let mean = next.iter().map(|s| s.ln()).sum::<f64>() / players as f64;
        for strength in &mut next {
            *strength /= mean.exp();
        }
        let moved = next
            .iter()
            .zip(&strengths)
            .map(|(a, b)| (a / b).log10().abs())
            .fold(0.0, f64::max);
        strengths = next;
        if POINTS_A_DECADE * moved < SETTLED {
            return Some(strengths.iter().map(|s| START + POINTS_A_DECADE * s.log10()).collect());
        }
    }
}

/// Whether from each player a chain of wins leads to every other.
fn all_beat_all(won: &[Vec<f64>]) -> bool {
    let reaches_all = |beats: &dyn Fn(usize, usize) -> bool| {
        let (mut seen, mut left) = (vec![false; won.len()], vec![0]);
        while let Some(i) = left.pop() {
            if !std::mem::replace(&mut seen[i], true) {
                left.extend((0..won.len()).filter(|j| beats(i, *j)));
            }
        }
        seen.into_iter().all(|seen| seen)
    };
    won.len() > 1 && reaches_all(&|i, j| won[i][j] > 0.0) && reaches_all(&|i, j| won[j][i] > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn games(of: &[(usize, usize, usize, usize)]) -> Vec<Game> {
        let each = of.iter().flat_map(|&(a, b, won, lost)| {
            let one = |score| Game { players: [a, b], score };
            std::iter::repeat_n(one(1.0), won).chain(std::iter::repeat_n(one(0.0), lost))
        });
        each.collect()
    }

    #[test]
    fn elo_moves_by_what_was_not_expected() {
        let points = elo_in_order(3, &games(&[(0, 1, 1, 0)]));
        assert_eq!(points, [1000.5, 999.5, 1000.0]);
        // 200 points are 10^(1/2) to 1: 0.7597 expected.
        let mut points = [1200.0, 1000.0];
        let expected = 1.0 / (1.0 + 10f64.powf((points[1] - points[0]) / 400.0));
        points[0] += 1.0 - expected;
        assert!((points[0] - 1200.2403).abs() < 1e-4);
        let rated = elo(2, &games(&[(0, 1, 30, 10)]), 1);
        assert!((rated[0].points + rated[1].points - 2000.0).abs() < 1e-9);
        assert!(rated[0].low < rated[0].points && rated[0].points < rated[0].high && rated[0].low > 1000.0);
    }

    #[test]
    fn two_players_are_as_far_apart_as_their_odds() {
        let found = bradley_terry(2, &games(&[(0, 1, 30, 10)]), 1).unwrap();
        let apart = found.ratings[0].points - found.ratings[1].points;
        assert!((apart - 400.0 * 3f64.log10()).abs() < 1e-4, "{apart}");
        // The bounds are those of the logarithm of the odds: its deviation is (1/30 + 1/10)^(1/2).
        let deviation = 1.96 * (1.0 / 30.0 + 1.0 / 10.0f64).sqrt() * 400.0 / 10f64.ln() / 2.0;
        let Rating { points, low, high } = found.ratings[0];
        assert!(
            ((points - low) / deviation - 1.0).abs() < 0.25 && ((high - points) / deviation - 1.0).abs() < 0.25,
            "{low} {points} {high}, {deviation}"
        );
    }

    /// The baseball season of 1987 that Agresti (Categorical Data Analysis, table 10.10) rates so: the published coefficients, in
    /// natural logarithms against Baltimore's.
    #[test]
    fn a_season_of_baseball_has_its_published_ratings() {
        // Home wins and losses: Milwaukee, Detroit, Toronto, New York, Boston, Cleveland, Baltimore, in turn at home.
        let season = [
            [(0, 0), (4, 3), (4, 2), (4, 3), (6, 1), (4, 2), (6, 0)],
            [(3, 3), (0, 0), (4, 2), (4, 3), (6, 0), (6, 1), (4, 3)],
            [(2, 5), (4, 3), (0, 0), (2, 4), (4, 3), (4, 2), (6, 0)],
            [(3, 3), (5, 1), (2, 5), (0, 0), (4, 3), (4, 2), (6, 1)],
            [(5, 1), (2, 5), (3, 3), (4, 2), (0, 0), (5, 2), (6, 0)],
            [(2, 5), (3, 3), (3, 4), (4, 3), (4, 2), (0, 0), (2, 4)],
            [(2, 5), (1, 5), (1, 6), (2, 4), (1, 6), (3, 4), (0, 0)],
        ];
        let rows = season.iter().enumerate().flat_map(|(home, row)| {
            row.iter()
                .enumerate()
                .map(move |(away, &(won, lost))| (home, away, won, lost))
        });
        let points = likeliest(7, &games(&rows.collect::<Vec<_>>())).unwrap();
        let published = [1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0.0];
        for (points_of, want) in points.iter().zip(published) {
            let found = (points_of - points[6]) / 400.0 * 10f64.ln();
            assert!((found - want).abs() < 1e-4, "{found} {want}");
        }
    }

    #[test]
    fn who_never_lost_has_no_rating_and_a_tie_gives_one() {
        assert_eq!(bradley_terry(2, &games(&[(0, 1, 9, 0)]), 1), None);
        let mut with_a_tie = games(&[(0, 1, 9, 0)]);
        with_a_tie.push(Game {
            players: [0, 1],
            score: 0.5,
        });
        let points = likeliest(2, &with_a_tie).unwrap();
        assert!((points[0] - points[1] - 400.0 * 19f64.log10()).abs() < 1e-4);
        // Nobody met the third.
        assert_eq!(bradley_terry(3, &games(&[(0, 1, 3, 2)]), 1), None);
    }
}
