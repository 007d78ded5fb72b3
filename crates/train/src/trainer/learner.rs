//! A player in training: its parameters under an optimizer, and their average.

use super::ema::Ema;
use super::optimizer::AdamW;
use crate::error::{Error, Result};
use crate::objective::Player;
use crate::params::NamedParams;
use std::collections::HashSet;

pub(super) struct Learner {
    pub(super) name: &'static str,
    pub(super) optimizer: AdamW,
    pub(super) ema: Option<Ema>,
    ema_decay: Option<f32>,
    /// Of each turn.
    pub(super) losses: Vec<f32>,
}

impl Learner {
    fn new(player: Player) -> Self {
        Self {
            name: player.name,
            ema: player.ema_decay.map(|decay| Ema::new(&player.params, decay)),
            ema_decay: player.ema_decay,
            optimizer: AdamW::new(player.optimizer, &player.params),
            losses: Vec::new(),
        }
    }

    /// All players of an objective, whose parameters and buffers need names of their own.
    pub(super) fn all(objective: &str, players: Vec<Player>, buffers: &NamedParams) -> Result<Vec<Self>> {
        if players.is_empty() {
            return Err(Error::Config(format!("{objective} has no player")));
        }
        let mut seen = HashSet::new();
        let params = players.iter().flat_map(|player| &player.params);
        for (key, _) in params {
            if !seen.insert(key) {
                return Err(Error::Config(format!("{objective}: two parameters are called {key}")));
            }
        }
        let mut seen = HashSet::new();
        if let Some((key, _)) = buffers.iter().find(|(key, _)| !seen.insert(key)) {
            return Err(Error::Config(format!("{objective}: two buffers are called {key}")));
        }
        Ok(players.into_iter().map(Self::new).collect())
    }

    pub(super) fn params(&self) -> &NamedParams {
        self.optimizer.params()
    }

    pub(super) fn set_trainable(&self, trainable: bool) {
        for (_, param) in self.params() {
            param.set_trainable(trainable);
        }
    }

    /// As at the start, from the parameters as they are now.
    pub(super) fn restart(&mut self) {
        self.optimizer = AdamW::new(self.optimizer.config.clone(), self.optimizer.params());
        self.ema = self.ema_decay.map(|decay| Ema::new(self.optimizer.params(), decay));
    }

    /// Moves the average after an update.
    pub(super) fn average(&mut self) {
        if let Some(ema) = &mut self.ema {
            ema.update(self.optimizer.step.saturating_sub(1));
        }
    }

    /// Mean loss of the last 200 turns.
    pub(super) fn recent_loss(&self) -> f32 {
        let recent = &self.losses[self.losses.len().saturating_sub(200)..];
        recent.iter().sum::<f32>() / recent.len().max(1) as f32
    }
}

/// Runs `f` with the averaged weights of those that have averages.
pub(super) fn with_averages<T>(learners: &[Learner], f: impl FnOnce() -> T) -> T {
    let averages: Vec<&Ema> = learners.iter().filter_map(|learner| learner.ema.as_ref()).collect();
    let trained: Vec<_> = averages.iter().map(|ema| ema.lend()).collect();
    let out = f();
    for (ema, trained) in averages.iter().zip(&trained) {
        ema.take_back(trained);
    }
    out
}
