//! Upscalers as ncnn has them (`NAME.param` and `NAME.bin`), turned into a safetensors file in memory. The layers have numbers for
//! names; they stand in the order in which they run, which is that of BasicSR's keys below.
//! The format: <https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure>.

use crate::Error;
use prima_checkpoint::Reader;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// First line of a `.param` file.
const MAGIC: &str = "7767517";
/// In front of weights in f16, and of some in f32.
const TAG_F16: u32 = 0x0130_6B47;
const TAG_F32: u32 = 0x0002_C056;
/// Larger than any upscaler.
const MAX_BYTES: u64 = 1 << 30;

/// A layer that has weights.
#[derive(Debug, PartialEq)]
enum Layer {
    Convolution {
        outputs: usize,
        kernel: usize,
        weights: usize,
        has_bias: bool,
    },
    Prelu {
        slopes: usize,
    },
}

/// Of either file's path.
pub(super) fn open(path: &Path) -> Result<Reader, Error> {
    let (param, bin) = (path.with_extension("param"), path.with_extension("bin"));
    let name = param.display().to_string();
    let read = |path: &Path| {
        let length = std::fs::metadata(path).map(|metadata| if metadata.is_file() { metadata.len() } else { 0 });
        match length {
            Ok(1..=MAX_BYTES) => std::fs::read(path).map_err(|error| error.to_string()),
            Ok(_) => Err("it is empty, too large, or no file".to_owned()),
            Err(error) => Err(error.to_string()),
        }
        .map_err(|reason| {
            wrong(
                path,
                format!("it cannot be read ({reason}); a model of ncnn is a .param and a .bin side by side"),
            )
        })
    };
    let text = String::from_utf8(read(&param)?).map_err(|_| wrong(&param, "it is not text".to_owned()))?;
    let layers = layers(&text).map_err(|reason| wrong(&param, reason))?;
    let tensors = tensors(&layers, &read(&bin)?).map_err(|reason| wrong(&bin, reason))?;
    let views = tensors.iter().map(|(key, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        view.map(|view| (key.clone(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>();
    let bytes = views.and_then(|views| serialize(views, None));
    let bytes = bytes.map_err(|error| wrong(&bin, error.to_string()))?;
    Ok(Reader::from_bytes(&name, bytes)?)
}

fn wrong(path: &Path, found: String) -> Error {
    Error::Kind {
        file: path.display().to_string(),
        expected: "an upscaler of ncnn",
        found,
    }
}

/// The layers with weights, in order.
fn layers(param: &str) -> Result<Vec<Layer>, String> {
    let mut lines = param.lines();
    if lines.next().map(str::trim) != Some(MAGIC) {
        return Err(format!("its first line is not {MAGIC}"));
    }
    let mut layers = Vec::new();
    for line in lines.skip(1) {
        let mut words = line.split_whitespace();
        let Some(kind) = words.next() else { continue };
        let values: BTreeMap<&str, usize> = words
            .filter_map(|word| word.split_once('='))
            .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
            .collect();
        let value = |key: &str, default: usize| values.get(key).copied().unwrap_or(default);
        match kind {
            "Convolution" => layers.push(Layer::Convolution {
                outputs: value("0", 0),
                kernel: value("1", 0),
                weights: value("6", 0),
                has_bias: value("5", 0) == 1,
            }),
            "PReLU" => layers.push(Layer::Prelu { slopes: value("0", 0) }),
            "Input" | "Split" | "Concat" | "BinaryOp" | "Eltwise" | "Interp" | "ReLU" | "PixelShuffle" | "Crop" => {}
            other => {
                return Err(format!(
                    "it has a layer of kind {other}, which no network of Real-ESRGAN has"
                ));
            }
        }
    }
    Ok(layers)
}

type Stored = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// The weights of `layers`, by BasicSR's keys.
fn tensors(layers: &[Layer], mut bin: &[u8]) -> Result<Stored, String> {
    let convolutions = layers
        .iter()
        .filter(|layer| matches!(layer, Layer::Convolution { .. }))
        .count();
    let is_compact = convolutions < layers.len();
    let mut tensors = Stored::new();
    for (i, layer) in layers.iter().enumerate() {
        let name = if is_compact {
            format!("body.{i}")
        } else {
            rrdb_name(i, convolutions)?
        };
        let mut put =
            |kind: &str, shape: Vec<usize>, values: Vec<u8>| tensors.insert(format!("{name}.{kind}"), (shape, values));
        match *layer {
            Layer::Convolution {
                outputs,
                kernel,
                weights,
                has_bias,
            } => {
                let taps = outputs.saturating_mul(kernel).saturating_mul(kernel);
                if taps == 0 || !weights.is_multiple_of(taps) {
                    return Err(format!(
                        "layer {i} of {weights} weights does not have {outputs} outputs"
                    ));
                }
                put(
                    "weight",
                    vec![outputs, weights / taps, kernel, kernel],
                    tagged(&mut bin, weights)?,
                );
                if has_bias {
                    put("bias", vec![outputs], floats(&mut bin, outputs)?);
                }
            }
            Layer::Prelu { slopes } => {
                put("weight", vec![slopes], floats(&mut bin, slopes)?);
            }
        }
    }
    if bin.is_empty() {
        Ok(tensors)
    } else {
        Err(format!("{} bytes follow the weights of the layers", bin.len()))
    }
}

/// BasicSR's name of convolution `i` of an `RRDBNet` with `count` of them and two doublings.
fn rrdb_name(i: usize, count: usize) -> Result<String, String> {
    const BEHIND: [&str; 5] = ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"];
    const IN_BLOCK: usize = 15;
    let blocks = count.saturating_sub(1 + BEHIND.len());
    if blocks == 0 || !blocks.is_multiple_of(IN_BLOCK) {
        return Err(format!(
            "it has {count} convolutions, which no network of Real-ESRGAN has"
        ));
    }
    Ok(match i.checked_sub(1) {
        None => "conv_first".to_owned(),
        Some(i) if i < blocks => {
            let (block, conv) = (i / IN_BLOCK, i % IN_BLOCK);
            format!("body.{block}.rdb{}.conv{}", conv / 5 + 1, conv % 5 + 1)
        }
        Some(i) => BEHIND[i - blocks].to_owned(),
    })
}

fn taken<'a>(bin: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bin
        .split_at_checked(count)
        .ok_or("it ends before the weights of its layers do")?;
    *bin = rest;
    Ok(taken)
}

fn floats(bin: &mut &[u8], count: usize) -> Result<Vec<u8>, String> {
    Ok(taken(bin, count.saturating_mul(4))?.to_vec())
}

/// Weights with their type in front of them.
fn tagged(bin: &mut &[u8], count: usize) -> Result<Vec<u8>, String> {
    let tag = taken(bin, 4)?
        .iter()
        .rev()
        .fold(0, |tag, byte| tag << 8 | u32::from(*byte));
    match tag {
        0 | TAG_F32 => floats(bin, count),
        TAG_F16 => {
            let halves = taken(bin, count.saturating_mul(2).next_multiple_of(4))?;
            let halves = halves.as_chunks::<2>().0.iter().take(count);
            Ok(halves
                .flat_map(|half| half::f16::from_le_bytes(*half).to_f32().to_le_bytes())
                .collect())
        }
        _ => Err("its weights are of a type that is not read: f32 and f16 are".to_owned()),
    }
}
