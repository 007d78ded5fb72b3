//! `--controlnet` and `--control-image`: pictures that steer what is painted.

use crate::{Usage, inpainting};
use anyhow::Result;
use prima_pipeline::{Control, ControlNetOptions, LoadOptions, Preprocessor};
use std::path::PathBuf;

/// Where they lie.
#[derive(clap::Args, Default)]
pub struct Folder {
    /// A folder of ControlNets, files and diffusers folders: requests name them without the ending
    #[arg(long, value_name = "DIR", env = "PRIMA_CONTROLNET_DIR")]
    controlnet_dir: Option<PathBuf>,
}

impl Folder {
    /// `options` with these, and `files` by their names.
    pub fn with(&self, options: LoadOptions, files: Vec<(String, PathBuf)>) -> LoadOptions {
        LoadOptions {
            controlnets: ControlNetOptions {
                folder: self.controlnet_dir.clone(),
                files,
            },
            ..options
        }
    }
}

/// What steers a picture.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    folder: Folder,
    /// A ControlNet and its weight, 1 if not said; a file, a diffusers folder, or a name in the folder of ControlNets
    /// (repeatable)
    #[arg(long, value_name = "FILE[:WEIGHT]", value_parser = weighted, requires = "control_image")]
    controlnet: Vec<(String, f64)>,
    /// What it reads: a picture, or a map of edges, depths or poses (once for each ControlNet)
    #[arg(long, value_name = "FILE", requires = "controlnet")]
    control_image: Vec<PathBuf>,
    /// What is made of that picture first: none, canny, scribble (once for all, or for each) [default: none]
    #[arg(long, value_name = "NAME", value_parser = <Preprocessor as std::str::FromStr>::from_str)]
    control_preprocessor: Vec<Preprocessor>,
    /// Share of the steps from which on it steers (once for all, or for each) [default: 0]
    #[arg(long, value_name = "X")]
    control_guidance_start: Vec<f64>,
    /// Share of the steps until which it steers [default: 1]
    #[arg(long, value_name = "X")]
    control_guidance_end: Vec<f64>,
}

/// A file or a name, and a weight behind a colon.
fn weighted(text: &str) -> Result<(String, f64), String> {
    // A colon may be part of a path.
    let weight = text
        .rsplit_once(':')
        .and_then(|(path, weight)| Some((path, weight.parse::<f64>().ok()?)));
    let (path, weight) = weight.unwrap_or((text, 1.0));
    if path.is_empty() {
        return Err("use a file and a weight, such as canny.safetensors:0.8".to_owned());
    }
    Ok((path.to_owned(), weight))
}

impl Args {
    /// `options` with the ControlNets that were named by their files.
    pub fn with(&self, options: LoadOptions) -> LoadOptions {
        let paths = self
            .controlnet
            .iter()
            .map(|(path, _)| (path.clone(), PathBuf::from(path)));
        let there = paths.filter(|(_, path)| path.exists() || path.components().count() > 1);
        self.folder.with(options, there.collect())
    }

    /// Those of a request.
    pub fn controls(&self) -> Result<Vec<Control>> {
        let count = self.controlnet.len();
        if self.control_image.len() != count {
            let images = self.control_image.len();
            let message = format!("there are {count} --controlnet and {images} --control-image: give each its picture");
            return Err(Usage(message).into());
        }
        let mut controls = Vec::new();
        for (i, ((name, scale), path)) in self.controlnet.iter().zip(&self.control_image).enumerate() {
            controls.push(Control {
                scale: *scale,
                preprocessor: of(&self.control_preprocessor, i, "preprocessor")?.unwrap_or_default(),
                start: of(&self.control_guidance_start, i, "guidance-start")?.unwrap_or(0.0),
                end: of(&self.control_guidance_end, i, "guidance-end")?.unwrap_or(1.0),
                ..Control::new(name.clone(), inpainting::picture(path)?)
            });
        }
        Ok(controls)
    }
}

/// What was said for number `i`: the same for all where it was said once.
fn of<T: Copy>(values: &[T], i: usize, option: &str) -> Result<Option<T>> {
    match values {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        many => match many.get(i) {
            Some(value) => Ok(Some(*value)),
            None => Err(Usage(format!(
                "--control-{option} is said once for all ControlNets, or for each"
            ))
            .into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_stands_behind_a_colon_and_what_is_said_once_holds_for_all() {
        assert_eq!(
            weighted("canny.safetensors:0.5"),
            Ok(("canny.safetensors".to_owned(), 0.5))
        );
        assert_eq!(weighted("C:\\canny"), Ok(("C:\\canny".to_owned(), 1.0)));
        assert!(weighted(":1").is_err());
        assert_eq!(of(&[0.2], 3, "x").unwrap(), Some(0.2));
        assert_eq!(of::<f64>(&[], 3, "x").unwrap(), None);
        assert!(of(&[0.2, 0.3], 2, "guidance-start").is_err());
    }
}
