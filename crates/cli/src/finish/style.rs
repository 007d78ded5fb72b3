//! `prima style`: pictures in the manner of others.

use super::{Files, Given, Made};
use crate::bar::Bar;
use crate::{Usage, device, output, source};
use anyhow::{Context as _, Result};
use prima_finish::{Styling, Stylist};
use prima_picture::{Layer, Picture};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// A picture whose manner to take; several are mixed, by weights behind colons such as a.png:2
    #[arg(long = "style", required = true, value_name = "FILE[:W]", value_parser = style)]
    styles: Vec<(PathBuf, f64)>,
    /// The folder of AdaIN's networks: vgg_normalised.safetensors and decoder.safetensors
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// How much of the style, 0 to 1
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    strength: f64,
    /// Leave the picture its colours
    #[arg(long)]
    keep_colours: bool,
    #[command(flatten)]
    device: device::Args,
}

/// A file and its weight; a name with a colon in it that is no number is a name.
fn style(text: &str) -> Result<(PathBuf, f64), &'static str> {
    let weighted = text
        .rsplit_once(':')
        .and_then(|(name, weight)| Some((name, weight.parse::<f64>().ok()?)));
    let (name, weight) = weighted.unwrap_or((text, 1.0));
    if !(weight > 0.0 && weight.is_finite()) {
        return Err("a weight is above 0");
    }
    Ok((name.into(), weight))
}

pub fn run(args: &Args) -> Result<()> {
    if !(0.0..=1.0).contains(&args.strength) {
        return Err(Usage(format!("--strength {} is not possible: use 0 to 1", args.strength)).into());
    }
    let bar = Bar::new();
    bar.say("loading");
    args.device.choose()?;
    let file = |name: &str| args.model.join(name).with_extension("safetensors");
    let (vgg, decoder) = (file("vgg_normalised"), file("decoder"));
    source::check_there(&vgg)?;
    source::check_there(&decoder)?;
    let stylist = Stylist::open(&vgg, &decoder, args.device.dtype)?;
    let styles: Vec<(Picture, f64)> = args
        .styles
        .iter()
        .map(|(path, weight)| Ok((picture(path)?, *weight)))
        .collect::<Result<_>>()?;
    bar.say("styling");
    args.files.each("styled", &bar, |given: &Given, on| {
        let styling = Styling {
            styles: &styles,
            strength: args.strength,
            keep_colours: args.keep_colours,
        };
        let picture = stylist.restyle(&given.layer.picture, &styling, on)?;
        let names: Vec<String> = args
            .styles
            .iter()
            .map(|(path, weight)| format!("{}:{weight}", name(path)))
            .collect();
        Ok(Made {
            layer: Layer {
                picture,
                alpha: given.layer.alpha.clone(),
            },
            fields: vec![
                ("Style", names.join(" ")),
                ("Style strength", args.strength.to_string()),
            ],
            told: json!({"styles": names, "strength": args.strength}),
        })
    })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub fn picture(path: &Path) -> Result<Picture> {
    let bytes = output::read_file(path, "picture")?;
    Picture::decode(&bytes, &path.display().to_string()).context("a picture is wanted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_style_may_have_a_weight() {
        assert_eq!(style("a.png"), Ok(("a.png".into(), 1.0)));
        assert_eq!(style("a:b.png:0.5"), Ok(("a:b.png".into(), 0.5)));
        assert_eq!(style("C:wave.png"), Ok(("C:wave.png".into(), 1.0)));
        assert!(style("a.png:0").is_err() && style("a.png:inf").is_err());
    }
}
