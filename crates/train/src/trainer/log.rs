//! What a run tells: running means to the terminal, to `metrics.jsonl` and to TensorBoard.

use super::tensorboard::EventWriter;
use crate::error::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use prima_checkpoint::export::write_bytes;
use prima_picture::{Parameters, Picture, encode_png};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// One turn.
pub(super) struct Report {
    /// Where there are several.
    pub player: Option<&'static str>,
    pub loss: f32,
    /// The gradient's, before clipping.
    pub norm: f32,
    pub learning_rate: f32,
}

/// The sums of one player's turns since the last line.
struct Turns {
    player: Option<&'static str>,
    count: usize,
    loss: f32,
    norm: f32,
    learning_rate: f32,
    metrics: Vec<(&'static str, f32)>,
}

impl Turns {
    /// The means; with several players `player/name`.
    fn numbers(self) -> Vec<(String, f32)> {
        let n = self.count.max(1) as f32;
        let mut numbers = vec![
            ("loss", self.loss / n),
            ("lr", self.learning_rate),
            ("grad_norm", self.norm / n),
        ];
        numbers.extend(self.metrics.into_iter().map(|(name, sum)| (name, sum / n)));
        let tag = |name: &str| match self.player {
            Some(player) => format!("{player}/{name}"),
            None => name.to_owned(),
        };
        numbers.into_iter().map(|(name, value)| (tag(name), value)).collect()
    }
}

pub(super) struct Log {
    name: &'static str,
    dir: PathBuf,
    events: EventWriter,
    jsonl: std::fs::File,
    bar: ProgressBar,
    /// Since the last line, in the order of their first turns.
    turns: Vec<Turns>,
    /// Of the last line.
    step: u64,
    since: Instant,
}

impl Log {
    /// Goes on from the lines up to `step`.
    pub(super) fn new(name: &'static str, dir: &Path, step: u64) -> Result<Self> {
        let path = dir.join("metrics.jsonl");
        forget_after(&path, step)?;
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
            turns: Vec::new(),
            step,
            since: Instant::now(),
        })
    }

    /// One turn, and its metrics.
    pub(super) fn push(&mut self, report: Report, metrics: impl Iterator<Item = (&'static str, f32)>) {
        let known = self.turns.iter().position(|turns| turns.player == report.player);
        let index = known.unwrap_or_else(|| {
            self.turns.push(Turns {
                player: report.player,
                count: 0,
                loss: 0.0,
                norm: 0.0,
                learning_rate: 0.0,
                metrics: Vec::new(),
            });
            self.turns.len() - 1
        });
        let turns = &mut self.turns[index];
        turns.count += 1;
        turns.loss += report.loss;
        turns.norm += report.norm;
        turns.learning_rate = report.learning_rate;
        for (name, value) in metrics {
            match turns.metrics.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                None => turns.metrics.push((name, value)),
            }
        }
    }

    /// A line about all turns since the last one, when `step` steps are done.
    pub(super) fn write(&mut self, step: u64, samples_per_step: usize, progress: f32) -> Result<()> {
        let samples = (step - self.step) as usize * samples_per_step;
        let per_second = (samples as f64 / self.since.elapsed().as_secs_f64().max(1e-6)) as f32;
        let mut numbers: Vec<_> = std::mem::take(&mut self.turns)
            .into_iter()
            .flat_map(Turns::numbers)
            .collect();
        let loss = numbers.first().map_or(f32::NAN, |(_, loss)| *loss);
        numbers.push(("samples_per_s".to_owned(), per_second));
        for (tag, value) in &numbers {
            self.events.scalar(tag, step, *value)?;
        }
        let mut line = serde_json::json!({ "stage": self.name, "step": step, "progress": progress });
        for (tag, value) in &numbers {
            line[tag] = serde_json::json!(value);
        }
        // In one call, so that a kill does not leave half a line.
        let written = self.jsonl.write_all(format!("{line}\n").as_bytes());
        written.map_err(Error::io(self.dir.join("metrics.jsonl")))?;
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
        self.step = step;
        self.since = Instant::now();
        Ok(())
    }

    /// A grid of samples, as a file and as an event.
    pub(super) fn samples(&mut self, step: u64, grid: &Picture) -> Result<()> {
        let png = encode_png(grid, &Parameters::default()).map_err(|e| Error::Data(e.to_string()))?;
        let path = self.dir.join(format!("samples-{step:06}.png"));
        write_bytes(&path, &png)?;
        self.events
            .image("samples", step, grid.width as u32, grid.height as u32, &png)
    }
}

/// Takes out the lines that a killed run wrote after the state of `step`, whose steps come again, and half a line at the end.
fn forget_after(path: &Path, step: u64) -> Result<()> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(path)(error)),
    };
    let stays = |line: &&str| {
        let line = serde_json::from_str::<serde_json::Value>(line).ok();
        line.and_then(|line| line["step"].as_u64()).is_some_and(|s| s <= step)
    };
    let is_whole = |line: &&str| line.ends_with('\n');
    let lines: String = text.split_inclusive('\n').filter(is_whole).filter(stays).collect();
    if lines != text {
        write_bytes(path, lines.as_bytes())?;
    }
    Ok(())
}
