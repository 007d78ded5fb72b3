//! Prompts are painted one after the other, as ComfyUI does it.

use super::events::Kind;
use super::graph::MOST_SIDE_PX;
use super::prompts::Asked;
use super::shelf::Folder;
use super::wanted::{Conditioning, Image, Output, OutputKind, Sampling, Start};
use crate::app::App;
use crate::jobs::{self, JobEvent};
use crate::pictures::Packed;
use crate::refusal::Refusal;
use crate::upscalers::Upscaler;
use crate::watch::Watch;
use prima_picture::{Format, Parameters, Picture, QUALITY, encode};
use prima_pipeline::{Control, Mask, PromptSyntax, Request, RequestBuilder, ScheduleOptions, scheduler_named};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Lets a prompt wait for its turn; it is painted whether or not its client stays.
pub(super) fn submit(app: &App, asked: Asked, front: bool) -> Result<(), Refusal> {
    if !app.comfy.wait(asked, front, app.options.max_jobs) {
        return Err(Refusal::queue_full());
    }
    let app = app.about_none();
    tell_remaining(&app);
    tokio::spawn(async move {
        let turn = app.comfy.turn().await;
        // The first one that waits is next; it may be another than the one whose turn was waited for.
        if let Some((asked, watch)) = app.comfy.begin() {
            Run::new(&app, &asked, watch).finish().await;
            app.comfy.end();
            tell_remaining(&app);
        }
        drop(turn);
    });
    Ok(())
}

pub(super) fn tell_remaining(app: &App) {
    app.comfy_events.tell(None, "status", remaining(app));
}

pub(super) fn remaining(app: &App) -> Value {
    json!({"status": {"exec_info": {"queue_remaining": app.comfy.remaining()}}})
}

fn milliseconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_millis() as u64)
}

/// Pictures with what they say of their making.
type Painted = Vec<(Picture, Parameters)>;

/// One prompt on its way.
struct Run<'a> {
    app: &'a App,
    asked: &'a Asked,
    watch: Arc<Watch>,
    /// By the node of the sampler.
    sampled: HashMap<String, Painted>,
    /// What history tells of each node.
    outputs: Value,
    messages: Vec<Value>,
    /// Of the node that is at work.
    node: String,
}

impl<'a> Run<'a> {
    fn new(app: &'a App, asked: &'a Asked, watch: Arc<Watch>) -> Self {
        Self {
            app,
            asked,
            watch,
            sampled: HashMap::new(),
            outputs: json!({}),
            messages: Vec::new(),
            node: String::new(),
        }
    }

    async fn finish(mut self) {
        self.say("execution_start", json!({"timestamp": milliseconds()}));
        self.say("execution_cached", json!({"nodes": [], "timestamp": milliseconds()}));
        let result = self.all().await;
        let interrupted = self.watch.is_interrupted();
        let done = result.is_ok() && !interrupted;
        match result {
            Ok(()) if !interrupted => self.say("execution_success", json!({"timestamp": milliseconds()})),
            Ok(()) => self.say(
                "execution_interrupted",
                json!({"node_id": self.node, "node_type": "KSampler", "executed": []}),
            ),
            Err(refusal) => {
                let data = json!({
                    "node_id": self.node, "node_type": "", "executed": [], "exception_message": refusal.message,
                    "exception_type": "prima", "traceback": [], "current_inputs": {}, "current_outputs": {},
                });
                self.say("execution_error", data);
            }
        }
        let status = json!({
            "status_str": if done { "success" } else { "error" }, "completed": done, "messages": self.messages,
        });
        let told = json!({"prompt": self.asked.listed(), "outputs": self.outputs, "status": status, "meta": {}});
        self.app.comfy.remember(&self.asked.id, told);
        // Who waits for this looks into the history then.
        self.tell("executing", json!({"node": null}));
    }

    /// Tells the client, with the prompt's id.
    fn tell(&self, kind: &str, mut data: Value) {
        data["prompt_id"] = json!(self.asked.id);
        self.app.comfy_events.tell(self.asked.client.as_deref(), kind, data);
    }

    /// The same, and history keeps it.
    fn say(&mut self, kind: &str, data: Value) {
        self.tell(kind, data.clone());
        self.messages.push(json!([kind, data]));
    }

    fn begin(&mut self, node: &str) {
        node.clone_into(&mut self.node);
        self.tell("executing", json!({"node": node, "display_node": node}));
    }

    async fn all(&mut self) -> Result<(), Refusal> {
        let asked = self.asked;
        for output in &asked.outputs {
            let mut samplings = Vec::new();
            output.image.samplings(&mut samplings);
            for sampling in samplings {
                if !self.sampled.contains_key(&sampling.node) {
                    self.begin(&sampling.node);
                    let painted = self.sample(sampling).await?;
                    self.sampled.insert(sampling.node.clone(), painted);
                }
                if self.watch.is_interrupted() {
                    return Ok(());
                }
            }
            self.begin(&output.node);
            let painted = self.image(&output.image).await?;
            self.put_out(output, painted).await?;
        }
        Ok(())
    }

    /// A picture whose samplers have all run.
    async fn image(&self, image: &Image) -> Result<Painted, Refusal> {
        let (image, changes) = without_changes(image);
        let mut painted = match image {
            Image::Loaded(name) => vec![(self.loaded(name).await?, Parameters::default())],
            Image::Sampled(sampling) => self.sampled.get(&sampling.node).cloned().unwrap_or_default(),
            Image::Scaled { .. } | Image::Upscaled { .. } => Vec::new(),
        };
        for change in changes {
            for (picture, _) in &mut painted {
                let from = std::mem::take(&mut picture.rgb);
                let whole = Picture { rgb: from, ..*picture };
                *picture = match &change {
                    Change::Scale(scale) => self.scaled(whole, *scale).await?,
                    Change::Upscale(model) => self.upscaled(whole, model).await?,
                };
            }
        }
        Ok(painted)
    }

    async fn scaled(&self, whole: Picture, scale: Scale) -> Result<Picture, Refusal> {
        let bytes = prima_picture::resize_bytes((whole.width, whole.height), scale.size(&whole));
        self.app.workshop.run(bytes, move || Ok(scale.of(&whole))).await
    }

    async fn upscaled(&self, whole: Picture, model: &str) -> Result<Picture, Refusal> {
        let (upscalers, by) = (self.app.upscalers.clone(), Upscaler::Network(model.to_owned()));
        let (scale, most) = (upscalers.scale(model)?, self.app.limits().image_pixels);
        let (width, height) = (whole.width * scale, whole.height * scale);
        if width.saturating_mul(height) > most {
            let message = format!("an image of {width}x{height} is not possible: use at most {most} pixels");
            return Err(Refusal::field(self.node.clone(), message));
        }
        let bytes = by.bytes((whole.width, whole.height), (width, height));
        let enlarge = move || Ok(upscalers.enlarged(&whole.into(), (width, height), &by)?.picture);
        self.app.workshop.run(bytes, enlarge).await
    }

    async fn loaded(&self, name: &str) -> Result<Picture, Refusal> {
        let packed = Packed::open(self.app, self.app.comfy_shelf.named(name)?).await?;
        let bytes = packed.header.decode_bytes;
        self.app.workshop.run(bytes, move || packed.decode()).await
    }

    async fn sample(&mut self, sampling: &Sampling) -> Result<Painted, Refusal> {
        let app = &self.app.about(Some(&sampling.model)).await?;
        let pictures = match &sampling.start {
            Start::Empty { .. } => vec![None],
            Start::Picture(image) | Start::Masked(image, _) => self
                .image(image)
                .await?
                .into_iter()
                .map(|(picture, _)| Some(picture))
                .collect(),
        };
        let controls = self.controls(sampling).await?;
        let mut all = Vec::new();
        for picture in pictures {
            let mask = match (&sampling.start, &picture) {
                (Start::Masked(_, masked), Some(picture)) => {
                    Some(masked.load(self.app, (picture.width, picture.height)).await?)
                }
                _ => None,
            };
            let pictures = Pictures {
                picture,
                mask,
                controls: controls.clone(),
            };
            let request = request(app, sampling, pictures)?;
            // To skip is to interrupt here: there is one unit.
            let mut running = jobs::start(app, "comfyui", vec![request], &self.watch, 3)?;
            while let Some(event) = running.next().await {
                match event {
                    JobEvent::Step { step, of } => {
                        let data = json!({"value": step, "max": of, "node": sampling.node});
                        self.tell("progress", data);
                    }
                    JobEvent::Preview(pictures) => self.show(pictures).await?,
                    JobEvent::Painted(painted) => all.extend(painted.pictures),
                    JobEvent::Failed(refusal) => return Err(refusal),
                }
            }
        }
        Ok(all)
    }

    /// A sampler's ControlNets with their pictures.
    async fn controls(&self, sampling: &Sampling) -> Result<Vec<Control>, Refusal> {
        let mut controls = Vec::new();
        for steered in &sampling.positive.steered {
            let pictures = self.image(&steered.image).await?;
            let picture = pictures.into_iter().next().map(|(picture, _)| picture);
            let picture =
                picture.ok_or_else(|| Refusal::field(sampling.node.clone(), "a ControlNet has no picture"))?;
            controls.push(Control {
                scale: steered.strength,
                start: steered.start,
                end: steered.end,
                ..Control::new(steered.name.clone(), picture)
            });
        }
        Ok(controls)
    }

    async fn show(&self, pictures: Vec<Picture>) -> Result<(), Refusal> {
        let Some(picture) = pictures.into_iter().next() else {
            return Ok(());
        };
        let pack = move || Ok(encode(&picture, Format::Jpeg, QUALITY, None)?);
        let file = self.app.workshop.behind(pack).await?;
        self.app
            .comfy_events
            .show(self.asked.client.as_deref(), Kind::Jpeg, &file);
        Ok(())
    }

    async fn put_out(&mut self, output: &Output, painted: Painted) -> Result<(), Refusal> {
        let mut images = Vec::new();
        for (picture, recipe) in painted {
            let pack = move || Ok(encode(&picture, Format::Png, QUALITY, Some(&recipe))?);
            let file = self.app.workshop.behind(pack).await?;
            let (folder, prefix) = match &output.kind {
                OutputKind::Socket => {
                    self.app
                        .comfy_events
                        .show(self.asked.client.as_deref(), Kind::Png, &file);
                    continue;
                }
                OutputKind::Cache => {
                    let id = format!("{}-{}-{}", self.asked.id, output.node, images.len());
                    self.app.comfy_shelf.put(Folder::Cache, &id, file.into());
                    images.push(json!({"source": "http", "id": id}));
                    continue;
                }
                OutputKind::Save { prefix } => (Folder::Output, prefix.as_str()),
                OutputKind::Preview => (Folder::Temp, "ComfyUI_temp"),
            };
            let name = self.app.comfy_shelf.next_name(folder, prefix);
            self.app.comfy_shelf.put(folder, &name, file.into());
            images.push(json!({"filename": name, "subfolder": "", "type": folder.as_str()}));
        }
        let told = json!({"images": images});
        let (node, data) = (
            &output.node,
            json!({"node": output.node, "display_node": output.node, "output": told}),
        );
        self.tell("executed", data);
        self.outputs[node] = told;
        Ok(())
    }
}

/// One way of resizing.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    width: usize,
    height: usize,
    crop: bool,
    nearest: bool,
}

impl Scale {
    /// A side of 0 keeps the shape.
    fn size(self, picture: &Picture) -> (usize, usize) {
        let side = |given: usize, other: usize, own: usize, others: usize| match (given, other) {
            (0, 0) => own,
            (0, other) => (own * other / others.max(1)).clamp(1, MOST_SIDE_PX),
            (given, _) => given,
        };
        (
            side(self.width, self.height, picture.width, picture.height),
            side(self.height, self.width, picture.height, picture.width),
        )
    }

    fn of(self, picture: &Picture) -> Picture {
        let (width, height) = self.size(picture);
        if self.nearest && !self.crop {
            return crate::upscalers::nearest_at(picture, width, height);
        }
        if self.crop {
            picture.covering(width, height)
        } else {
            picture.resized(width, height)
        }
    }
}

/// What happens to a picture between its sampler, or its file, and the end.
pub(super) enum Change {
    Scale(Scale),
    /// By a network.
    Upscale(String),
}

/// What is changed, and how, first to last.
pub(super) fn without_changes(mut image: &Image) -> (&Image, Vec<Change>) {
    let mut changes = Vec::new();
    loop {
        let (change, inner) = match image {
            Image::Scaled {
                image,
                width,
                height,
                crop,
                nearest,
            } => {
                let scale = Scale {
                    width: *width,
                    height: *height,
                    crop: *crop,
                    nearest: *nearest,
                };
                (Change::Scale(scale), image)
            }
            Image::Upscaled { image, model } => (Change::Upscale(model.clone()), image),
            Image::Loaded(_) | Image::Sampled(_) => break,
        };
        changes.push(change);
        image = inner;
    }
    changes.reverse();
    (image, changes)
}

/// What a sampler sees.
#[derive(Default)]
pub(super) struct Pictures {
    /// What is painted over, and where.
    pub picture: Option<Picture>,
    pub mask: Option<Mask>,
    pub controls: Vec<Control>,
}

/// A sampler as a request. The steps of a part of the way are as many as asked for, as in ComfyUI.
pub(super) fn request(
    app: &App,
    sampling: &Sampling,
    Pictures {
        picture,
        mask,
        controls,
    }: Pictures,
) -> Result<Request, Refusal> {
    let node = |refusal: Refusal| Refusal::field(sampling.node.clone(), refusal.message);
    let pipeline = app.pipeline()?;
    let (steps, strength) = if picture.is_some() && sampling.denoise < 1.0 {
        let whole = (sampling.steps as f64 / sampling.denoise.max(1e-3)) as usize;
        (whole, (sampling.steps as f64 / whole.max(1) as f64 + 1e-9).min(1.0))
    } else {
        (sampling.steps, 1.0)
    };
    let (width, height, batch) = match &sampling.start {
        Start::Empty { width, height, batch } => (Some(*width), Some(*height), *batch),
        Start::Picture(_) | Start::Masked(..) => {
            (picture.as_ref().map(|p| p.width), picture.as_ref().map(|p| p.height), 1)
        }
    };
    let skipped = |text: &Conditioning| {
        let own = pipeline.parts().text_encoders.skipped_layers();
        text.left_out.map(|left_out| left_out.saturating_sub(own))
    };
    let regions = sampling.positive.regions(&sampling.node, (width, height))?;
    if !sampling.negative.regions(&sampling.node, (width, height))?.is_empty() {
        return Err(node(Refusal::bad("areas of the negative conditioning are not read")));
    }
    let spacing = sampling.scheduler.parse().map_err(prima_pipeline::Error::Schedule);
    let asked = RequestBuilder {
        prompt: Some(sampling.positive.text.clone()),
        prompt_syntax: PromptSyntax::A1111,
        negative_prompt: Some(sampling.negative.text.clone()),
        guidance_scale: Some(sampling.cfg),
        seed: Some(sampling.seed),
        regions,
        width,
        height,
        num_images: Some(batch.saturating_mul(sampling.copies)),
        schedule: ScheduleOptions {
            num_inference_steps: Some(steps),
            // Where ComfyUI draws its noise is no other sampler.
            scheduler: scheduler_named(Some(sampling.sampler.trim_end_matches("_gpu"))).map_err(|e| node(e.into()))?,
            spacing: Some(spacing.map_err(|e| node(e.into()))?),
            ..ScheduleOptions::default()
        },
        clip_skip: skipped(&sampling.positive),
        loras: sampling.loras.clone(),
        image: picture,
        mask,
        controls,
        strength: Some(strength),
        ..app.request(&[])
    };
    asked.build_for(pipeline).map_err(|e| node(e.into()))
}
