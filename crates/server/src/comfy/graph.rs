//! What a graph of nodes asks for.

use super::nodes;
use super::wanted::{Conditioning, Image, MASKING, Output, OutputKind, Sampling, Start};
use crate::numbers::whole_of;
use crate::refusal::{Refusal, short};
use prima_pipeline::{LoraChoice, without_ending};
use serde_json::{Map, Value};

/// Nodes one behind the other, beyond which a graph is no workflow.
const DEEPEST: usize = 32;
const MOST_NODES: usize = 256;
/// Of a picture that is scaled: each of a batch is in memory.
pub(super) const MOST_SIDE_PX: usize = 2048;

/// A graph whose nodes are all known.
pub(super) struct Graph<'a>(&'a Map<String, Value>);

/// What a client's lists hold.
pub(super) struct Known<'a> {
    pub models: &'a [String],
    pub loras: &'a [String],
    pub controlnets: &'a [String],
    pub upscalers: &'a [String],
}

/// The node at fault is the refusal's field.
pub(super) fn wrong(node: &str, message: impl Into<String>) -> Refusal {
    Refusal::field(short(node, 60), message)
}

impl<'a> Graph<'a> {
    /// Refuses nodes that are not known, all of them by name.
    pub fn new(graph: &'a Map<String, Value>) -> Result<Self, Refusal> {
        if graph.len() > MOST_NODES {
            return Err(Refusal::bad(format!("the prompt has more than {MOST_NODES} nodes")));
        }
        let mut unknown = Vec::new();
        for (id, node) in graph {
            let class = node.get("class_type").and_then(Value::as_str);
            let class = class.ok_or_else(|| wrong(id, format!("node {} has no class_type", short(id, 60))))?;
            if !nodes::is_known(class) && !unknown.contains(&class) && unknown.len() < 20 {
                unknown.push(class);
            }
        }
        match unknown.first() {
            None => Ok(Self(graph)),
            Some(first) => {
                let at_fault = graph
                    .iter()
                    .find(|(_, node)| node.get("class_type").and_then(Value::as_str) == Some(*first));
                let names: Vec<String> = unknown.iter().map(|name| short(name, 60)).collect();
                let message = format!("prima does not have these nodes: {}", names.join(", "));
                Err(wrong(at_fault.map_or("", |(id, _)| id), message))
            }
        }
    }

    /// What the graph ends in, in order; at least one picture.
    pub fn outputs(&self, known: &Known) -> Result<Vec<Output>, Refusal> {
        let mut outputs = Vec::new();
        for (id, node) in self.0 {
            let kind = match node.get("class_type").and_then(Value::as_str) {
                Some("SaveImage") => {
                    let prefix = self.input(id, "filename_prefix").ok().and_then(Value::as_str);
                    let prefix = super::shelf::file_name(prefix.unwrap_or("ComfyUI"));
                    OutputKind::Save { prefix }
                }
                Some("PreviewImage") => OutputKind::Preview,
                Some("SaveImageWebsocket") => OutputKind::Socket,
                Some("ETN_SaveImageCache") => OutputKind::Cache,
                _ => continue,
            };
            let image = self.image(id, "images", known, 0)?;
            outputs.push(Output {
                node: id.clone(),
                kind,
                image,
            });
        }
        if outputs.is_empty() {
            return Err(Refusal::bad(
                "the prompt has no outputs: end it in SaveImage or PreviewImage",
            ));
        }
        Ok(outputs)
    }

    pub(super) fn image(&self, of: &str, input: &str, known: &Known, depth: usize) -> Result<Image, Refusal> {
        let (id, class, output) = self.link(of, input, depth)?;
        match (class, output) {
            ("LoadImage", 0) => Ok(Image::Loaded(self.text(id, "image")?.to_owned())),
            ("ETN_LoadImageCache", 0) => Ok(Image::Loaded(super::shelf::cached(self.text(id, "id")?))),
            ("ImageScale", 0) => Ok(Image::Scaled {
                image: Box::new(self.image(id, "image", known, depth + 1)?),
                width: self.whole(id, "width", 0, MOST_SIDE_PX)?,
                height: self.whole(id, "height", 0, MOST_SIDE_PX)?,
                crop: self.input(id, "crop").is_ok_and(|crop| crop == "center"),
                nearest: self.text(id, "upscale_method")?.starts_with("nearest"),
            }),
            ("ImageUpscaleWithModel", 0) => {
                let (loader, class, _) = self.link(id, "upscale_model", depth)?;
                if class != "UpscaleModelLoader" {
                    return Err(self.misfit(id, "upscale_model", "that of UpscaleModelLoader", class));
                }
                let name = self.text(loader, "model_name")?;
                let bare = name.rsplit_once('.').map_or(name, |(bare, _)| bare);
                let mut here = known.upscalers.iter();
                let model = here
                    .find(|here| *here == name || *here == bare)
                    .ok_or_else(|| wrong(loader, format!("there is no upscale model {:?} here", short(name, 60))))?;
                Ok(Image::Upscaled {
                    image: Box::new(self.image(id, "image", known, depth + 1)?),
                    model: model.clone(),
                })
            }
            ("VAEDecode", 0) => {
                self.expect(id, "vae", "CheckpointLoaderSimple", 2, depth)?;
                match self.latent(id, "samples", known, depth + 1)? {
                    Latent::Sampled(sampling) => Ok(Image::Sampled(sampling)),
                    Latent::Start(Start::Picture(image) | Start::Masked(image, _)) => Ok(image),
                    Latent::Start(Start::Empty { .. }) => {
                        Err(wrong(id, "VAEDecode decodes latents that nothing sampled"))
                    }
                }
            }
            _ => Err(self.misfit(of, input, "a picture", class)),
        }
    }

    pub(super) fn latent(&self, of: &str, input: &str, known: &Known, depth: usize) -> Result<Latent, Refusal> {
        let (id, class, output) = self.link(of, input, depth)?;
        match (class, output) {
            ("EmptyLatentImage", 0) => Ok(Latent::Start(Start::Empty {
                width: self.whole(id, "width", 8, 4096)?,
                height: self.whole(id, "height", 8, 4096)?,
                batch: self.whole(id, "batch_size", 1, 64).or_else(|refusal| {
                    // Older workflows leave it out.
                    if self.input(id, "batch_size").is_err() {
                        Ok(1)
                    } else {
                        Err(refusal)
                    }
                })?,
            })),
            ("VAEEncode", 0) => {
                self.expect(id, "vae", "CheckpointLoaderSimple", 2, depth)?;
                Ok(Latent::Start(Start::Picture(self.image(
                    id,
                    "pixels",
                    known,
                    depth + 1,
                )?)))
            }
            (class, output) if MASKING.contains(&(class, output)) => {
                let (image, masked) = self.masked(id, class, known, depth + 1)?;
                Ok(Latent::Start(Start::Masked(image, masked)))
            }
            ("KSampler", 0) => Ok(Latent::Sampled(Box::new(self.sampling(id, known, depth + 1)?))),
            ("SamplerCustomAdvanced", 0 | 1) => Ok(Latent::Sampled(Box::new(self.sampling_in_parts(
                id,
                known,
                depth + 1,
            )?))),
            _ => Err(self.misfit(of, input, "latents", class)),
        }
    }

    fn sampling(&self, id: &str, known: &Known, depth: usize) -> Result<Sampling, Refusal> {
        let mut loras = Vec::new();
        let model = self.model(id, "model", known, depth, &mut loras)?;
        let (start, copies) = self.start(id, known, depth)?;
        let seed = whole_of(self.input(id, "seed")?).filter(|seed| (-1..=i128::from(u64::MAX)).contains(seed));
        Ok(Sampling {
            node: id.to_owned(),
            model,
            seed: seed.ok_or_else(|| self.not_possible(id, "seed", "use a whole number"))?,
            steps: self.whole(id, "steps", 1, 10_000)?,
            cfg: self.number(id, "cfg", 0.0, 100.0)?,
            sampler: self.text(id, "sampler_name")?.to_owned(),
            scheduler: self.text(id, "scheduler")?.to_owned(),
            denoise: self.number(id, "denoise", 0.0, 1.0).or_else(|refusal| {
                if self.input(id, "denoise").is_err() {
                    Ok(1.0)
                } else {
                    Err(refusal)
                }
            })?,
            positive: self.conditioning(id, "positive", known, depth)?,
            negative: self.conditioning(id, "negative", known, depth)?,
            loras,
            start,
            copies,
        })
    }

    pub(super) fn conditioning(
        &self,
        of: &str,
        input: &str,
        known: &Known,
        depth: usize,
    ) -> Result<Conditioning, Refusal> {
        let (id, class, output) = self.link(of, input, depth)?;
        // It passes both on, with a picture that the model here gets from the latents.
        match (class, output) {
            ("InpaintModelConditioning", 0) => return self.conditioning(id, "positive", known, depth + 1),
            ("InpaintModelConditioning", 1) => return self.conditioning(id, "negative", known, depth + 1),
            ("ControlNetApply" | "ControlNetApplyAdvanced", _) => {
                return self.steered(id, class, output, known, depth + 1);
            }
            _ => {}
        }
        match class {
            "ConditioningSetArea" | "ConditioningSetAreaPercentage" => {
                return self.in_an_area(id, class, known, depth + 1);
            }
            "ConditioningCombine" => return self.combined(id, known, depth + 1),
            _ => {}
        }
        if class != "CLIPTextEncode" {
            return Err(self.misfit(of, input, "the conditioning of CLIPTextEncode", class));
        }
        Ok(Conditioning::of(
            self.text(id, "text")?,
            self.clip(id, known, depth + 1)?,
        ))
    }

    /// Layers that are left out of the text encoder that a node's `clip` comes from.
    fn clip(&self, of: &str, known: &Known, depth: usize) -> Result<Option<usize>, Refusal> {
        let (id, class, output) = self.link(of, "clip", depth)?;
        match (class, output) {
            ("CheckpointLoaderSimple", 1) => self.checkpoint(id, known).map(|_| None),
            ("LoraLoader", 1) => self.clip(id, known, depth + 1),
            ("CLIPSetLastLayer", 0) => {
                self.clip(id, known, depth + 1)?;
                let layer = whole_of(self.input(id, "stop_at_clip_layer")?).filter(|layer| (-24..=-1).contains(layer));
                let layer = layer.ok_or_else(|| self.not_possible(id, "stop_at_clip_layer", "use -24 to -1"))?;
                Ok(Some((-layer - 1) as usize))
            }
            _ => Err(self.misfit(of, "clip", "a text encoder", class)),
        }
    }

    pub(super) fn model(
        &self,
        of: &str,
        input: &str,
        known: &Known,
        depth: usize,
        loras: &mut Vec<LoraChoice>,
    ) -> Result<String, Refusal> {
        let (id, class, output) = self.link(of, input, depth)?;
        match (class, output) {
            ("CheckpointLoaderSimple", 0) => self.checkpoint(id, known),
            ("LoraLoader", 0) => {
                let name = self.text(id, "lora_name")?;
                let strength = |input| Ok::<_, Refusal>(self.input(id, input)?.as_f64().unwrap_or(1.0) as f32);
                let (unet, text) = (strength("strength_model")?, strength("strength_clip")?);
                if !known.loras.iter().any(|lora| lora == name) {
                    return Err(wrong(id, format!("there is no LoRA {:?} here", short(name, 60))));
                }
                let model = self.model(id, "model", known, depth + 1, loras)?;
                loras.push(LoraChoice {
                    name: name.to_owned(),
                    unet,
                    text,
                });
                Ok(model)
            }
            _ => Err(self.misfit(of, input, "a model", class)),
        }
    }

    /// The model's name as the lists have it.
    fn checkpoint(&self, id: &str, known: &Known) -> Result<String, Refusal> {
        let name = self.text(id, "ckpt_name")?;
        let is_meant = |model: &&String| *model == name || without_ending(model) == without_ending(name);
        let found = known.models.iter().find(is_meant).cloned();
        found.ok_or_else(|| {
            let here: Vec<&str> = known.models.iter().take(12).map(String::as_str).collect();
            let (name, here) = (short(name, 60), here.join(", "));
            wrong(id, format!("there is no model {name:?} here; this server has {here}"))
        })
    }

    /// That an input comes from this output of a node of this class.
    pub(super) fn expect(&self, of: &str, input: &str, wanted: &str, output: u64, depth: usize) -> Result<(), Refusal> {
        let (_, class, from) = self.link(of, input, depth)?;
        if (class, from) == (wanted, output) {
            return Ok(());
        }
        Err(self.misfit(of, input, &format!("that of {wanted}"), class))
    }

    pub(super) fn input(&self, id: &str, name: &str) -> Result<&'a Value, Refusal> {
        let found = self
            .0
            .get(id)
            .and_then(|node| node.get("inputs")?.get(name))
            .filter(|value| !value.is_null());
        found.ok_or_else(|| wrong(id, format!("{} has no {name}", self.called(id))))
    }

    /// The node that an input comes from, its class, and which of its outputs it is.
    pub(super) fn link(&self, of: &str, input: &str, depth: usize) -> Result<(&'a str, &'a str, u64), Refusal> {
        let not_linked = || {
            wrong(
                of,
                format!("{input} of {} comes from no node of the prompt", self.called(of)),
            )
        };
        if depth > DEEPEST {
            return Err(wrong(
                of,
                format!(
                    "{} stands in a circle, or behind more than {DEEPEST} nodes",
                    self.called(of)
                ),
            ));
        }
        let link = self.input(of, input)?.as_array().ok_or_else(not_linked)?;
        let [id, output] = &link[..] else {
            return Err(not_linked());
        };
        let id = id.as_str().ok_or_else(not_linked)?;
        let (id, node) = self.0.get_key_value(id).ok_or_else(not_linked)?;
        let class = node.get("class_type").and_then(Value::as_str).unwrap_or_default();
        Ok((id, class, output.as_u64().ok_or_else(not_linked)?))
    }

    pub(super) fn text(&self, id: &str, input: &str) -> Result<&'a str, Refusal> {
        let value = self.input(id, input)?;
        value
            .as_str()
            .ok_or_else(|| self.not_possible(id, input, "a text is wanted"))
    }

    pub(super) fn whole(&self, id: &str, input: &str, least: usize, most: usize) -> Result<usize, Refusal> {
        let number = whole_of(self.input(id, input)?).and_then(|n| usize::try_from(n).ok());
        let possible = number.filter(|n| (least..=most).contains(n));
        possible.ok_or_else(|| self.not_possible(id, input, &format!("use {least} to {most}")))
    }

    fn called(&self, id: &str) -> String {
        let class = self
            .0
            .get(id)
            .and_then(|node| node.get("class_type")?.as_str())
            .unwrap_or("node");
        format!("{} ({class})", short(id, 60))
    }

    pub(super) fn misfit(&self, of: &str, input: &str, wanted: &str, found: &str) -> Refusal {
        wrong(
            of,
            format!("{input} of {} is not {wanted}, but comes from {found}", self.called(of)),
        )
    }

    pub(super) fn not_possible(&self, id: &str, input: &str, fix: &str) -> Refusal {
        let value = self.input(id, input).map_or_else(|_| String::new(), Value::to_string);
        wrong(
            id,
            format!(
                "{input} {} of {} is not possible: {fix}",
                short(&value, 40),
                self.called(id)
            ),
        )
    }
}

pub(super) enum Latent {
    Start(Start),
    Sampled(Box<Sampling>),
}
