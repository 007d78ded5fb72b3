//! Whether there is room for a model, found out before the model is loaded. For a GPU the same code paints the same request on
//! a device that computes nothing and counts what is allocated; for the CPU the headers of the files say how large the weights
//! will be, and the autoencoder's config how large its widest pictures.

use crate::controlnets::ControlNets;
use crate::{Error, LoadOptions, ModelSource, Parts, Pipeline, Request, Vae, families, host_memory};
use prima_tensor::{DType, Device, Residency};
use std::ops::ControlFlow;

/// What the count cannot see: scratch memory of cuDNN, compiled kernels, vocabularies, what rounding up costs.
const MARGIN_BYTES: usize = 256 << 20;

/// Memory that a model and one request take, in bytes.
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
            let pipeline = Pipeline::new(Parts::outline(source, true)?)?;
            pipeline.paint(request, &mut |_| ControlFlow::Continue(()))?;
            let peak = dry.usage().peak;
            pipeline.parts().text_encoders.forget_prompts();
            Ok(Self {
                weights: dry.usage().in_use,
                peak,
            })
        })
    }

    /// The same on the CPU, for one picture at a time.
    fn on_cpu(source: &ModelSource, dtype: DType, request: &Request) -> Result<Self, Error> {
        let pipeline = Pipeline::new(Parts::outline(source, false)?)?;
        let settings = crate::settings::Settings::new(&pipeline, request)?;
        let weights = families::weight_bytes(source, pipeline.parts().family, dtype)?;
        let pixels = settings.width * settings.height;
        let pictures = match &pipeline.parts().vae {
            Vae::Kl(vae) => vae.decode_bytes(pixels),
            Vae::Tiny(_) => pixels * TINY_CHANNELS * size_of::<f32>(),
        };
        Ok(Self {
            weights,
            peak: weights + pictures + pictures / 4,
        })
    }
}

/// Bytes that a model's weights take in memory where all of them stay there, by the headers of its files.
pub fn weight_bytes(source: &ModelSource, dtype: DType) -> Result<usize, Error> {
    let index = source.json("", "model_index.json")?;
    families::weight_bytes(source, crate::Family::of_index(source, &index)?, dtype)
}

/// Pictures of full size in `AutoencoderTiny`, in channels.
const TINY_CHANNELS: usize = 3 * 64;

/// Of the weights, what forms of them take that are not in the cache yet: those of a few convolutions.
const OTHER_FORMS: usize = 20;

/// A place that has to hold a model and what a request computes.
struct Place {
    device: Device,
    /// In bytes.
    free: usize,
    total: usize,
    /// Whether weights may be read again and again, from a cache.
    streams: bool,
}

/// How a model fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Whole,
    /// With that many bytes of its weights in memory at a time.
    Streamed(usize),
}

impl Place {
    /// Where the current device's memory is, and how much of it may be used; `None` where nobody knows how much there is.
    fn current(options: &LoadOptions) -> Result<Option<Self>, Error> {
        let device = Device::current();
        let memory = match device.memory()? {
            Some(memory) => Some(memory),
            None => host_memory::free_and_total().or_else(|| options.max_memory.map(|most| (most, most))),
        };
        let most = options.max_memory.unwrap_or(usize::MAX);
        Ok(memory.map(|(free, total)| Self {
            streams: options.cache.is_some() && !device.is_gpu(),
            device,
            free: free.min(most),
            total: total.min(most),
        }))
    }

    fn needs(&self, source: &ModelSource, dtype: DType, request: &Request) -> Result<Needs, Error> {
        if self.device.is_gpu() {
            Needs::of(source, dtype, request, &self.device)
        } else {
            Needs::on_cpu(source, dtype, request)
        }
    }

    fn fit(&self, needs: &Needs) -> Option<Fit> {
        if needs.peak + MARGIN_BYTES <= self.free {
            return Some(Fit::Whole);
        }
        let besides = needs.peak - needs.weights + needs.weights / OTHER_FORMS + MARGIN_BYTES;
        let left = self.free.checked_sub(besides)?;
        (self.streams && left >= Residency::LEAST).then_some(Fit::Streamed(left))
    }

    /// The least of memory with which it fits.
    fn least(&self, needs: &Needs) -> usize {
        if !self.streams {
            return needs.peak;
        }
        let streamed = needs.peak - needs.weights + needs.weights / OTHER_FORMS + Residency::LEAST;
        streamed.min(needs.peak)
    }

    /// What would fit of the same picture in bf16 and of smaller ones, in words.
    fn ways(&self, source: &ModelSource, dtype: DType, request: &Request) -> Result<Vec<String>, Error> {
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
                let needs = self.needs(source, other, &resized)?;
                if self.fit(&needs).is_some() {
                    let (width, height) = (resized.width.unwrap_or(width), resized.height.unwrap_or(height));
                    let sides = format!("{width}x{height}");
                    let way = match (flag, parts) {
                        ("", _) => sides,
                        (_, 4) => flag.to_owned(),
                        _ => format!("{flag} at {sides}"),
                    };
                    ways.push(format!("{way} ({})", amount(self.least(&needs))));
                    break;
                }
            }
        }
        Ok(ways)
    }

    fn check(&self, source: &ModelSource, dtype: DType, request: &Request) -> Result<Fit, Error> {
        let needs = self.needs(source, dtype, request)?;
        if let Some(fit) = self.fit(&needs) {
            return Ok(fit);
        }
        let (width, height) = size(source, request)?;
        let ways = self.ways(source, dtype, request)?;
        let dtype = if dtype == DType::F32 { "f32" } else { "bf16" };
        let streamed = if self.streams {
            format!(
                ", or {} with its weights read again for each picture",
                amount(self.least(&needs) + MARGIN_BYTES)
            )
        } else {
            String::new()
        };
        let (memory, elsewhere) = if self.device.is_gpu() {
            ("on the GPU", "use --device cpu")
        } else {
            ("of memory", "use a smaller model or end other programs")
        };
        Err(Error::NoRoom {
            model: source.name(),
            needs: format!(
                "{} {memory} for a picture of {width}x{height} in {dtype} ({} of it weights){streamed}, and {} of {} are free",
                amount(needs.peak),
                amount(needs.weights),
                amount(self.free),
                amount(self.total)
            ),
            fix: if ways.is_empty() {
                format!("neither smaller pictures nor bf16 would fit, {elsewhere}")
            } else {
                format!("what fits is {}", ways.join(", or "))
            },
        })
    }
}

/// Whether the device that is chosen has room for the model and `request`; what would fit, if not. With a cache of packed
/// weights only some of them have to be in memory at a time: the options that come back say how many. Where a system does not
/// say how much memory it has, the CPU has as much as `max_memory` says, or any.
pub fn check_room(source: &ModelSource, options: &LoadOptions, request: &Request) -> Result<LoadOptions, Error> {
    let mut options = options.clone();
    let steering = ControlNets::new(&options.controlnets, options.dtype)?.weight_bytes(&request.controls)?;
    // The steps of both models are those of one, and an outline has no ControlNets.
    let request = &Request {
        refiner_switch_at: None,
        controls: Vec::new(),
        ..request.clone()
    };
    if let Some(mut place) = Place::current(&options)? {
        place.free = place.free.saturating_sub(steering);
        if let Some(refiner) = &options.refiner {
            let bytes = families::weight_bytes(refiner, families::Family::of(refiner)?, options.dtype)?;
            place.free = place.free.saturating_sub(bytes);
        }
        // Quantized weights are not kept in the cache.
        place.streams &= !source.component_reader("unet")?.is_quantized();
        options.resident = match place.check(source, options.dtype, request)? {
            Fit::Whole => None,
            Fit::Streamed(bytes) => Some(bytes),
        };
    }
    Ok(options)
}

/// The picture's size in pixels, which the request may leave to the model.
fn size(source: &ModelSource, request: &Request) -> Result<(usize, usize), Error> {
    let pipeline = Pipeline::new(Parts::outline(source, false)?)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_does_not_fit_the_cpus_memory_is_told_what_would() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/tiny-sdxl");
        let source = ModelSource::open(&model).unwrap();
        let request = Request {
            width: Some(1024),
            height: Some(1024),
            ..Request::default()
        };
        let needs = |dtype| Needs::on_cpu(&source, dtype, &request).unwrap();
        let (wide, narrow) = (needs(DType::F32), needs(DType::BF16));
        assert!(narrow.weights > wide.weights / 2 && narrow.weights < wide.weights);
        let refused = |free| {
            let place = Place {
                device: Device::cpu(),
                free,
                total: 1 << 34,
                streams: false,
            };
            let checked = place.check(&source, DType::F32, &request);
            checked.map_err(|error| error.to_string()).err()
        };
        assert_eq!(refused(wide.peak + MARGIN_BYTES), None);
        let told = refused(wide.peak + MARGIN_BYTES - 1).unwrap();
        assert!(told.contains("of memory for a picture of 1024x1024 in f32"), "{told}");
        assert!(
            told.contains("what fits is 768x768") && told.contains("--dtype bf16"),
            "{told}"
        );
        assert!(refused(MARGIN_BYTES).unwrap().contains("use a smaller model"));
    }
}
