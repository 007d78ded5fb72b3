//! A progress bar on a terminal's stderr; nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use prima_pipeline::{Loaded, Progress};

pub struct Bar(ProgressBar);

impl Bar {
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{msg:8} {bar:30} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub fn say(&self, what: &'static str) {
        self.0.set_message(what);
        self.0.tick();
    }

    /// While the model is read: how much of a component there is.
    pub fn load(&self, loaded: Loaded) {
        self.0.set_length(loaded.total as u64 >> 20);
        self.0.set_position(loaded.bytes as u64 >> 20);
        self.0.set_message(format!("loading {} (MiB)", loaded.component));
    }

    pub fn show(&self, progress: Progress) {
        match progress {
            Progress::Text => {
                self.0.set_length(0);
                self.say("painting");
            }
            Progress::Step { done, total, .. } => {
                self.0.set_length(total as u64);
                self.0.set_position(done as u64);
                if done == total {
                    self.say("decoding");
                }
            }
            Progress::Decode { .. } | Progress::Tick => self.0.tick(),
        }
    }

    /// Parts of a picture that are finished.
    pub fn part(&self, progress: prima_finish::Progress) {
        self.0.set_length(progress.total as u64);
        self.0.set_position(progress.done as u64);
        self.0.tick();
    }

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
