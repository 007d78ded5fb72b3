//! `prima cutout`: what is pointed at, without the rest.

use super::style::picture;
use super::{Files, Given, Made};
use crate::bar::Bar;
use crate::{Usage, device, source};
use anyhow::Result;
use prima_finish::{Error, Pointed, Progress, Segmenter, soft_edges};
use prima_picture::{Gray, Layer, Picture};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// A Segment Anything model (ViT-B, L or H) as safetensors
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// A place in what to cut out, in pixels such as 120,80; may be repeated [default: the middle, without --box]
    #[arg(long = "point", value_name = "X,Y", value_parser = numbers::<2>)]
    points: Vec<[f32; 2]>,
    /// A place that does not belong to it; may be repeated
    #[arg(long = "not-point", value_name = "X,Y", value_parser = numbers::<2>)]
    not_points: Vec<[f32; 2]>,
    /// Left, top, right and bottom around it
    #[arg(long = "box", value_name = "L,T,R,B", value_parser = numbers::<4>)]
    bounds: Option<[f32; 4]>,
    /// Cut out whatever there is, all in one: an N x N grid of places is pointed at
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "16", conflicts_with_all = ["points", "not_points", "bounds"],
        value_parser = clap::value_parser!(u8).range(1..=64))]
    all: Option<u8>,
    /// How far from the edge its softness is taken from the picture, in pixels; 0 for a hard edge
    #[arg(long, value_name = "PX", default_value_t = 6)]
    soft: usize,
    /// What to put behind it: a colour such as #ffcc00, or a picture [default: nothing]
    #[arg(long, value_name = "COLOUR|FILE")]
    background: Option<String>,
    #[command(flatten)]
    device: device::Args,
}

fn numbers<const N: usize>(text: &str) -> Result<[f32; N], String> {
    let parts = text
        .split(',')
        .map(|part| part.trim().parse::<f32>().ok().filter(|n| n.is_finite()));
    let parts: Option<Vec<f32>> = parts.collect();
    let told = || format!("use {N} numbers of pixels with commas between them");
    parts.and_then(|parts| parts.try_into().ok()).ok_or_else(told)
}

/// What stands behind.
enum Background {
    Nothing,
    Colour([u8; 3]),
    Picture(Picture),
}

fn background(text: Option<&str>) -> Result<Background> {
    let Some(text) = text else {
        return Ok(Background::Nothing);
    };
    let Some(digits) = text.strip_prefix('#') else {
        return Ok(Background::Picture(picture(text.as_ref())?));
    };
    let colour = u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 6);
    let colour = colour.ok_or_else(|| {
        Usage(format!(
            "--background {text} is no colour: use six digits such as #ffcc00"
        ))
    })?;
    let [_, r, g, b] = colour.to_be_bytes();
    Ok(Background::Colour([r, g, b]))
}

pub fn run(args: &Args) -> Result<()> {
    if args.points.is_empty() && !args.not_points.is_empty() && args.bounds.is_none() {
        return Err(Usage("--not-point says what does not belong to it: give --point or --box too".to_owned()).into());
    }
    let background = background(args.background.as_deref())?;
    let bar = Bar::new();
    bar.say("loading");
    args.device.choose()?;
    source::check_there(&args.model)?;
    let segmenter = Segmenter::open(&args.model)?;
    bar.say("cutting");
    args.files.each("cutout", &bar, |given: &Given, on| {
        let whole = &given.layer.picture;
        let mut keep_going = || on(Progress { done: 0, total: 1 }).is_continue();
        let seen = segmenter.look(whole, &mut keep_going)?;
        let masks = match args.all {
            Some(side) => seen.all(usize::from(side), &mut keep_going)?,
            None => vec![seen.mask(&pointed(args, whole))?],
        };
        let score = masks.first().ok_or(Error::NothingFound)?.score;
        let mut alpha = Gray::flat(whole.width, whole.height, 0);
        for mask in &masks {
            for (all, value) in alpha.values.iter_mut().zip(soft_edges(whole, mask, args.soft)) {
                *all = value.max(*all);
            }
        }
        if let Some(own) = &given.layer.alpha {
            for (value, own) in alpha.values.iter_mut().zip(&own.values) {
                *value = (*value).min(*own);
            }
        }
        let cut = Layer {
            picture: whole.clone(),
            alpha: Some(alpha),
        };
        let layer = match &background {
            Background::Nothing => cut,
            Background::Colour(colour) => cut.before(*colour).into(),
            Background::Picture(behind) => cut.before_picture(behind).into(),
        };
        Ok(Made {
            layer,
            fields: vec![("Cut out by", segmenter.name().to_owned())],
            told: json!({"score": score, "masks": masks.len()}),
        })
    })
}

fn pointed(args: &Args, picture: &Picture) -> Pointed {
    let mut inside = args.points.clone();
    if inside.is_empty() && args.bounds.is_none() {
        inside.push([picture.width as f32 / 2.0, picture.height as f32 / 2.0]);
    }
    Pointed {
        inside,
        outside: args.not_points.clone(),
        bounds: args.bounds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_bounds_are_numbers_with_commas() {
        assert_eq!(numbers::<2>("12, 3.5"), Ok([12.0, 3.5]));
        assert_eq!(numbers::<4>("1,2,3,4"), Ok([1.0, 2.0, 3.0, 4.0]));
        for wrong in ["1", "1,2,3", "a,b", "1,nan"] {
            assert!(numbers::<2>(wrong).is_err(), "{wrong}");
        }
        assert!(matches!(
            background(Some("#102030")),
            Ok(Background::Colour([16, 32, 48]))
        ));
        assert!(background(Some("#12")).is_err());
    }
}
