//! `--refiner`: a second model for the last steps.

use crate::source;
use anyhow::Result;
use prima_pipeline::LoadOptions;

#[derive(clap::Args, Default)]
pub struct Args {
    /// A model that takes the last steps, such as SDXL's refiner: a diffusers folder, or a checkpoint in one file
    #[arg(long, value_name = "DIR|FILE")]
    refiner: Option<String>,
    /// Share of the steps after which it takes over [default: 0.8]
    #[arg(long, value_name = "X", requires = "refiner")]
    refiner_switch_at: Option<f64>,
    /// How beautiful the picture is to be, 0 to 10, which only refiners are told [default: 6]
    #[arg(long, value_name = "X")]
    pub aesthetic_score: Option<f64>,
    /// The same of what the picture should not be [default: 2.5]
    #[arg(long, value_name = "X")]
    pub negative_aesthetic_score: Option<f64>,
}

/// That of diffusers' and the web UI's examples.
const SWITCH_AT: f64 = 0.8;

impl Args {
    /// `options` with this refiner.
    pub fn with(&self, options: LoadOptions) -> Result<LoadOptions> {
        let open = |refiner: &String| source::open(Some(refiner));
        Ok(LoadOptions {
            refiner: self.refiner.as_ref().map(open).transpose()?,
            ..options
        })
    }

    /// When it takes over, where there is one.
    pub fn switch_at(&self) -> Option<f64> {
        self.refiner
            .as_ref()
            .map(|_| self.refiner_switch_at.unwrap_or(SWITCH_AT))
    }
}
