//! What a run tells: running means to the terminal, to `metrics.jsonl` and to TensorBoard.

use crate::error::{Error, Result};
use crate::sample_grid::png_bytes;
use crate::tensorboard::EventWriter;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub(crate) struct Log {
    name: &'static str,
    dir: PathBuf,
    events: EventWriter,
    jsonl: std::fs::File,
    bar: ProgressBar,
    /// Since the last line.
    losses: Vec<f32>,
    metrics: Vec<(&'static str, f32)>,
    norms: f32,
    since: Instant,
}

impl Log {
    pub fn new(name: &'static str, dir: &Path, step: u64) -> Result<Self> {
        let path = dir.join("metrics.jsonl");
        let jsonl = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        let style = ProgressStyle::with_template("{prefix} {bar:30} {msg} {elapsed_precise}");
        let bar = ProgressBar::new(1000)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_prefix(name)
            .with_position(step);
        Ok(Self {
            name,
            dir: dir.to_path_buf(),
            events: EventWriter::create(dir)?,
            jsonl,
            bar,
            losses: Vec::new(),
            metrics: Vec::new(),
            norms: 0.0,
            since: Instant::now(),
        })
    }

    /// One step: its loss, the metrics of each of its `batches` batches here, and the gradient's norm.
    pub fn push(&mut self, loss: f32, metrics: &[(&'static str, f32)], batches: usize, norm: f32) {
        self.losses.push(loss);
        self.norms += norm;
        for (name, value) in metrics {
            let value = value / batches as f32;
            match self.metrics.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += value,
                None => self.metrics.push((name, value)),
            }
        }
    }

    pub fn write(&mut self, step: u64, samples_per_step: usize, learning_rate: f32, progress: f32) -> Result<()> {
        let n = self.losses.len().max(1) as f32;
        let loss = self.losses.iter().sum::<f32>() / n;
        let samples = self.losses.len() * samples_per_step;
        let per_second = (samples as f64 / self.since.elapsed().as_secs_f64().max(1e-6)) as f32;
        let mut numbers = vec![("loss", loss), ("lr", learning_rate), ("grad_norm", self.norms / n)];
        numbers.push(("samples_per_s", per_second));
        numbers.extend(self.metrics.drain(..).map(|(name, sum)| (name, sum / n)));
        for (tag, value) in &numbers {
            self.events.scalar(tag, step, *value)?;
        }
        let mut line = serde_json::json!({ "stage": self.name, "step": step, "progress": progress });
        for (tag, value) in &numbers {
            line[*tag] = serde_json::json!(value);
        }
        writeln!(self.jsonl, "{line}").map_err(Error::io(self.dir.join("metrics.jsonl")))?;
        self.bar.set_position((progress * 1000.0) as u64);
        self.bar
            .set_message(format!("step {step} loss {loss:.4} {per_second:.1}/s"));
        if self.bar.is_hidden() {
            let text: Vec<String> = numbers.iter().map(|(tag, value)| format!("{tag} {value:.4}")).collect();
            tracing::info!(
                "{} step {step} ({:.0} %): {}",
                self.name,
                progress * 100.0,
                text.join(", ")
            );
        }
        self.norms = 0.0;
        self.losses.clear();
        self.since = Instant::now();
        Ok(())
    }

    /// A grid of samples, as a file and as an event.
    pub fn samples(&mut self, step: u64, grid: &RgbImage) -> Result<()> {
        let png = png_bytes(grid)?;
        let path = self.dir.join(format!("samples-{step:06}.png"));
        std::fs::write(&path, &png).map_err(Error::io(&path))?;
        self.events.image("samples", step, grid.width(), grid.height(), &png)
    }
}
