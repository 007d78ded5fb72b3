//! `prima upscale`: pictures to larger ones.

use super::{Files, Given, Made};
use crate::bar::Bar;
use crate::{Usage, device, source};
use anyhow::Result;
use prima_finish::Upscaler;
use prima_finish::upscale::EMBEDDED_NAME;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// How many times larger each way, 1 to 16 [default: what the network makes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    scale: Option<u8>,
    /// An upscaler of the Real-ESRGAN family: a .safetensors, or a .param of ncnn with its .bin beside it [default:
    /// realesr-animevideov3, which is in the binary]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// How strongly realesr-general-x4v3 denoises, 0 to 1 (needs --mild-model)
    #[arg(long, value_name = "X", requires = "mild_model")]
    denoise: Option<f32>,
    /// The file that denoises little and is mixed with --model: realesr-general-wdn-x4v3
    #[arg(long, value_name = "FILE", requires = "denoise")]
    mild_model: Option<PathBuf>,
    #[command(flatten)]
    device: device::Args,
}

pub fn run(args: &Args) -> Result<()> {
    let bar = Bar::new();
    bar.say("loading");
    args.device.choose()?;
    let upscaler = open(args)?;
    let scale = args.scale.map_or(upscaler.scale(), usize::from);
    bar.say("enlarging");
    args.files.each(&format!("{scale}x"), &bar, |given: &Given, on| {
        let picture = &given.layer.picture;
        let layer = upscaler.enlarge(&given.layer, picture.width * scale, picture.height * scale, on)?;
        Ok(Made {
            layer,
            // As the web UI writes it.
            fields: vec![
                ("Postprocess upscale by", scale.to_string()),
                ("Postprocess upscaler", upscaler.name().to_owned()),
            ],
            told: json!({"scale": scale, "model": upscaler.name()}),
        })
    })
}

fn open(args: &Args) -> Result<Upscaler> {
    let dtype = args.device.dtype;
    let model = match &args.model {
        None => None,
        Some(model) if model.as_os_str() == "embedded" || model.as_os_str() == EMBEDDED_NAME => None,
        Some(model) => Some(model),
    };
    match (model, &args.mild_model, args.denoise) {
        (Some(model), Some(mild), Some(denoise)) => {
            if !(0.0..=1.0).contains(&denoise) {
                return Err(Usage(format!("--denoise {denoise} is not possible: use 0 to 1")).into());
            }
            source::check_there(model)?;
            source::check_there(mild)?;
            Ok(Upscaler::mixed(model, mild, denoise)?)
        }
        (None, Some(_), _) => {
            Err(Usage("--mild-model is mixed with another file: give that with --model".to_owned()).into())
        }
        (Some(model), ..) => {
            source::check_there(model)?;
            Ok(Upscaler::open(model, dtype)?)
        }
        (None, ..) => Ok(Upscaler::embedded(dtype)?),
    }
}
