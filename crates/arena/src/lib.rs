//! Which of several models is better, by people who do not know which is which: pairs of pictures of one prompt, two questions
//! (Sauer et al. 2023, ADD, sec. 4: prompt following and quality, asked apart), random sides, pairs of one model as a check of the
//! voter; votes in SQLite; ratings by Elo and by Bradley and Terry's model.

mod entrants;
mod error;
mod page;
mod pairs;
pub mod ratings;
mod results;
mod votes;

pub use entrants::{Entrant, Painted};
pub use error::Error;
pub use page::{ArenaOptions, serve};
pub use pairs::{Kind, Pair, Pairs};
pub use results::{Check, Question, Results};
pub use votes::{Answer, Vote, Votes};
