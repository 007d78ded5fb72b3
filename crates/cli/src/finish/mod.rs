//! Commands that make pictures of pictures: many files, one after the other.

pub mod cutout;
pub mod style;
pub mod upscale;

use crate::bar::Bar;
use crate::out::{note, say};
use crate::output::{self, Target, Wanted};
use crate::{Usage, stop::Stop};
use anyhow::{Result, bail};
use prima_finish::{Error, Progress};
use prima_picture::{Layer, Parameters, QUALITY, encode_layer, read_parameters};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What all of them take.
#[derive(clap::Args)]
#[expect(clippy::struct_field_names, reason = "clap shows the fields' names")]
pub struct Files {
    /// Pictures (PNG, JPEG or WebP)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A .png, .jpg or .webp to write, a folder, or `-` for stdout; {name} and {index} are filled in, several pictures of one
    /// name are numbered [default: beside the picture, with what was done in the name]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace files that are there; else the new picture's name gets a number
    #[arg(long)]
    overwrite: bool,
    /// Print one JSON object a picture: files, sizes, time
    #[arg(long)]
    json: bool,
}

/// A picture's file that was read.
pub struct Given {
    pub layer: Layer,
    /// What the file says of its making.
    parameters: Option<Parameters>,
}

impl Given {
    fn read(path: &Path) -> Result<Self> {
        let bytes = output::read_file(path, "picture")?;
        Ok(Self {
            layer: Layer::decode_at_most(&bytes, &path.display().to_string(), usize::MAX)?,
            // What cannot be read of it is left behind; the picture counts.
            parameters: read_parameters(&bytes).unwrap_or_default(),
        })
    }
}

/// What one was made of, and what there is to say.
pub struct Made {
    pub layer: Layer,
    /// For the file's `parameters`, behind those that it had.
    pub fields: Vec<(&'static str, String)>,
    /// For `--json`.
    pub told: Value,
}

impl Files {
    /// A place for each picture: `NAME-WORD.png` beside it, or in the folder that was asked for.
    fn targets(&self, word: &str) -> Result<Vec<Target>> {
        if self.json && self.output.as_deref() == Some(Path::new("-")) {
            return Err(Usage("--json and -o - both want stdout: give the picture a name".to_owned()).into());
        }
        let wanted = |path: &PathBuf| {
            let folder = path.parent().unwrap_or(Path::new(""));
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Wanted(vec![
                ("name", name),
                ("folder", folder.join("").to_string_lossy().into_owned()),
            ])
        };
        let wanted: Vec<Wanted> = self.files.iter().map(wanted).collect();
        let name = format!("{{name}}-{word}.png");
        output::targets(
            self.output.as_deref(),
            [&format!("{{folder}}{name}"), &name],
            self.overwrite,
            &wanted,
        )
    }

    /// `make` for each picture; one that cannot be read or made is told, and the others are made all the same.
    pub fn each(
        &self,
        word: &str,
        bar: &Bar,
        mut make: impl FnMut(&Given, &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Made>,
    ) -> Result<()> {
        let targets = self.targets(word)?;
        let stop = Stop::listen()?;
        let mut failed = 0;
        for (done, (path, target)) in self.files.iter().zip(&targets).enumerate() {
            let start = Instant::now();
            let made = Given::read(path).and_then(|given| {
                let made = make(&given, &mut |progress| {
                    bar.part(progress);
                    if stop.asked.load(Ordering::Relaxed) {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })?;
                target.write(&encoded(target, &given, &made)?)?;
                Ok((given, made))
            });
            bar.finish();
            match made {
                Ok((given, made)) => self.say(path, target, &given, &made, start)?,
                Err(error) if matches!(error.downcast_ref(), Some(Error::Cancelled)) => {
                    return Err(stop
                        .stopped(format!("{done} of {} pictures are there", targets.len()))
                        .into());
                }
                Err(error) if targets.len() == 1 || error.is::<crate::out::Unread>() => return Err(error),
                Err(error) => {
                    note!("error: {}", crate::sentence(&error));
                    failed += 1;
                }
            }
        }
        if failed > 0 {
            bail!("{failed} of {} pictures could not be made", targets.len());
        }
        Ok(())
    }

    fn say(&self, path: &Path, target: &Target, given: &Given, made: &Made, start: Instant) -> Result<()> {
        let (from, to) = (&given.layer.picture, &made.layer.picture);
        let ms = (start.elapsed().as_secs_f64() * 1e4).round() / 10.0;
        if self.json {
            let mut line = json!({
                "input": path,
                "file": target.path(),
                "input_size": [from.width, from.height],
                "size": [to.width, to.height],
                "transparent": made.layer.alpha.is_some(),
                "ms": ms,
            });
            if let (Some(line), Value::Object(told)) = (line.as_object_mut(), made.told.clone()) {
                line.extend(told);
            }
            say!("{line}");
        } else if let Some(file) = target.path() {
            say!("{}", file.display());
            note!("{}x{} in {:.1} s", to.width, to.height, ms / 1e3);
        }
        Ok(())
    }
}

fn encoded(target: &Target, given: &Given, made: &Made) -> Result<Vec<u8>> {
    let mut parameters = given.parameters.clone().unwrap_or_default();
    let fields = made
        .fields
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()));
    parameters.fields.extend(fields);
    Ok(encode_layer(&made.layer, target.format(), QUALITY, Some(&parameters))?)
}
