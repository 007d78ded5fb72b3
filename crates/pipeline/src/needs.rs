//! Whether a GPU has room for a model, found out before the model is loaded: the same code paints the same request on a device
//! that computes nothing and counts what is allocated.

use crate::{Error, ModelSource, Parts, Pipeline, Request};
use prima_tensor::{DType, Device};
use std::ops::ControlFlow;

/// What the count cannot see: scratch memory of cuDNN, compiled kernels, what rounding up costs.
const MARGIN_BYTES: usize = 256 << 20;

/// Memory that a model and one request take on a GPU, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Of the weights, kept between requests.
    pub weights: usize,
    /// At once, weights included.
    pub peak: usize,
}

impl Needs {
    /// For `request` on the model with activations and weights of `dtype`, by a GPU like `device`; nothing on the CPU, where
    /// memory is not counted. Nothing is computed and no weight is read.
    pub fn of(source: &ModelSource, dtype: DType, request: &Request, device: &Device) -> Result<Self, Error> {
        let Some(dry) = device.dry_run(dtype) else {
            return Ok(Self { weights: 0, peak: 0 });
        };
        dry.run(|| {
            let pipeline = Pipeline::new(Parts::outline(source)?)?;
            pipeline.paint(request, &mut |_| ControlFlow::Continue(()))?;
            let peak = dry.usage().peak;
            pipeline.parts().text_encoders.forget_prompts();
            Ok(Self {
                weights: dry.usage().in_use,
                peak,
            })
        })
    }
}

/// Whether the device that is chosen has room for the model and `request`; what would fit, if not. The CPU always has.
pub fn check_room(source: &ModelSource, dtype: DType, request: &Request) -> Result<(), Error> {
    let device = Device::current();
    let Some((free, total)) = device.memory()? else {
        return Ok(());
    };
    let fits = |needs: &Needs| needs.peak + MARGIN_BYTES <= free;
    let needs = Needs::of(source, dtype, request, &device)?;
    if fits(&needs) {
        return Ok(());
    }
    let (width, height) = size(source, request)?;
    let mut ways = Vec::new();
    for (other, flag) in [(dtype, ""), (DType::BF16, "--dtype bf16")] {
        if !flag.is_empty() && other == dtype {
            continue;
        }
        for parts in [4, 3, 2, 1] {
            let smaller = |side: usize| (side * parts / 4 / 64 * 64).max(64);
            let resized = Request {
                width: Some(if parts == 4 { width } else { smaller(width) }),
                height: Some(if parts == 4 { height } else { smaller(height) }),
                ..request.clone()
            };
            let needs = Needs::of(source, other, &resized, &device)?;
            if fits(&needs) {
                let (width, height) = (resized.width.unwrap_or(width), resized.height.unwrap_or(height));
                let sides = format!("{width}x{height}");
                let way = match (flag, parts) {
                    ("", _) => sides,
                    (_, 4) => flag.to_owned(),
                    _ => format!("{flag} at {sides}"),
                };
                ways.push(format!("{way} ({})", amount(needs.peak)));
                break;
            }
        }
    }
    let dtype = if dtype == DType::F32 { "f32" } else { "bf16" };
    Err(Error::NoRoom {
        model: source.name(),
        needs: format!(
            "{} on the GPU for a picture of {width}x{height} in {dtype} ({} of it weights), and {} of {} are free",
            amount(needs.peak),
            amount(needs.weights),
            amount(free),
            amount(total)
        ),
        fix: if ways.is_empty() {
            "neither smaller pictures nor bf16 would fit, use --device cpu".to_owned()
        } else {
            format!("what fits is {}", ways.join(", or "))
        },
    })
}

/// The picture's size in pixels, which the request may leave to the model.
fn size(source: &ModelSource, request: &Request) -> Result<(usize, usize), Error> {
    let pipeline = Pipeline::new(Parts::outline(source)?)?;
    let settings = crate::settings::Settings::new(&pipeline, request)?;
    Ok((settings.width, settings.height))
}

fn amount(bytes: usize) -> String {
    let mib = bytes.div_ceil(1 << 20);
    if mib < 1024 {
        format!("{mib} MiB")
    } else {
        format!("{:.1} GiB", mib as f64 / 1024.0)
    }
}
