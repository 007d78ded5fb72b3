//! `prima models pull`: a model from the hub into the hub's own cache.

use crate::out::{note, say};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use prima_hub::{Event, Pulled, Settings, Variant, Wanted, pull};

#[derive(clap::Args)]
pub struct Args {
    /// What the hub calls it: org/name, org/name@revision, one file of it as org/name/file.safetensors, or its address
    #[arg(value_name = "ID")]
    id: String,
    /// A branch, a tag or a commit [default: main]
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
    /// fp16: half of the download, where there is such a variant
    #[arg(long, value_name = "NAME", value_parser = ["fp16"])]
    variant: Option<String>,
    /// Print one JSON object at the end, and no progress
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let mut wanted: Wanted = args.id.parse()?;
    if let Some(revision) = &args.revision {
        // Through the same reading as behind an @.
        let file = wanted
            .id
            .file
            .as_ref()
            .map_or_else(String::new, |file| format!("/{file}"));
        wanted = format!("{}{file}@{revision}", wanted.id.repository).parse()?;
    }
    if args.variant.is_some() {
        wanted.variant = Variant::Fp16;
    }
    let bar = Bar::new(args.json);
    let pulled = pull(&wanted, &Settings::of_environment()?, &mut |event| bar.show(event));
    bar.0.finish_and_clear();
    let pulled = pulled?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&pulled)?);
    } else {
        say!("{}", pulled.path.display());
        note!("{}", what_next(&pulled));
    }
    Ok(())
}

/// How what came is used.
fn what_next(pulled: &Pulled) -> String {
    let id = &pulled.id;
    let came = if pulled.downloaded == 0 {
        "was there already".to_owned()
    } else {
        format!("{:.2} GB came", pulled.downloaded as f64 / 1e9)
    };
    let is_model = prima_checkpoint::info(&pulled.path).is_ok_and(|info| info.layout != "weights");
    if is_model {
        format!("{id}: {came}; paint with --model {id}")
    } else {
        format!("{id}: {came}; it is no whole model: name this path to --lora, --unet or --vae")
    }
}

/// Bytes of all files; nothing where stderr is no terminal, or the hub's own variable says so.
struct Bar(ProgressBar);

impl Bar {
    fn new(quiet: bool) -> Self {
        let off = std::env::var("HF_HUB_DISABLE_PROGRESS_BARS").is_ok_and(|said| said == "1" || said == "true");
        let bar = ProgressBar::new(0);
        if quiet || off {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = "{msg:40!} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn show(&self, event: Event) {
        match event {
            Event::Plan { bytes, .. } => self.0.set_length(bytes),
            Event::File { name, .. } => self.0.set_message(name),
            Event::Bytes { bytes } => self.0.inc(bytes),
            Event::Again { bytes } => self.0.set_position(self.0.position().saturating_sub(bytes)),
            Event::Unchecked { name } => {
                let said = format!("warning: nothing is known by which {name} could be checked");
                self.0.suspend(|| note!("{said}"));
            }
        }
    }
}
