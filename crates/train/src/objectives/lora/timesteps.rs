//! Where a LoRA is trained: at all timesteps, or at those that a model of few steps paints with.

use crate::draws::{normal, purpose, uniform};
use crate::error::{Error, Result};
use crate::noising::Noising;
use prima_pipeline::{Pipeline, ScheduleOptions};
use prima_schedulers::Schedule;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Timesteps {
    /// All alike; of a flow as its teacher was trained, by a normal logit (Esser et al. 2024).
    All,
    /// Those of several ways to paint, of which each is as frequent as the others.
    Few(Vec<Vec<usize>>),
}

impl Timesteps {
    /// Those `asked` for, or else what suits the model.
    pub(crate) fn of(asked: Option<&[usize]>, model: &Pipeline, noising: &Noising) -> Result<Self> {
        if let Some(asked) = asked {
            noising.check_falling("lora", asked)?;
            return Ok(Self::Few(vec![asked.to_vec()]));
        }
        let defaults = model.defaults();
        if !defaults.few_steps {
            return Ok(Self::All);
        }
        let counts = defaults.step_counts.iter().chain(defaults.timesteps.keys());
        let mut counts: Vec<usize> = counts.copied().chain([defaults.num_inference_steps]).collect();
        counts.sort_unstable();
        counts.dedup();
        let table = |steps: usize| {
            let options = ScheduleOptions {
                timesteps: defaults.timesteps.get(&steps).cloned(),
                ..ScheduleOptions::steps(steps)
            };
            let schedule = Schedule::new(&model.parts().scheduler_config, &options).map_err(Error::config)?;
            let whole = |t: &f64| (t.round() as usize).min(noising.last());
            Ok(schedule.timesteps.iter().map(whole).collect())
        };
        Ok(Self::Few(counts.into_iter().map(table).collect::<Result<_>>()?))
    }

    /// The timesteps of `n` samples of batch `number`.
    pub(crate) fn draw(&self, noising: &Noising, seed: u64, number: u64, n: usize) -> Vec<usize> {
        let draws = uniform(seed, purpose::TIMESTEP, number, 2 * n);
        let at = |u: f32, count: usize| ((u * count as f32) as usize).min(count - 1);
        match self {
            Self::All if noising.is_flow() => {
                let logits = normal(seed, purpose::TIMESTEP, number, n).into_iter();
                logits.map(|z| noising.timestep_at(z)).collect()
            }
            Self::All => draws[..n].iter().map(|u| at(*u, noising.last() + 1)).collect(),
            Self::Few(tables) => {
                let pairs = draws.chunks_exact(2);
                pairs
                    .map(|pair| {
                        let table = &tables[at(pair[0], tables.len())];
                        table[at(pair[1], table.len())]
                    })
                    .collect()
            }
        }
    }
}
