//! Nodes by which Krita's plugin for image generation asks: a sampler in parts, and pictures by ids of its own.

use super::graph::{Graph, Known, Latent};
use super::shelf::{Folder, kind};
use super::wanted::{Conditioning, Image, Sampling, Start};
use crate::app::App;
use crate::body;
use crate::numbers::whole_of;
use crate::pictures::Packed;
use crate::refusal::{Refusal, short};
use axum::Json;
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

impl Graph<'_> {
    /// What a SamplerCustomAdvanced comes to: the KSampler that takes the same steps.
    pub(super) fn sampling_in_parts(&self, id: &str, known: &Known, depth: usize) -> Result<Sampling, Refusal> {
        let noise = self.part(id, "noise", &["RandomNoise"], depth)?.0;
        let sampler = self.part(id, "sampler", &["KSamplerSelect"], depth)?.0;
        let (sigmas, steps, left) = self.sigmas(id, depth)?;
        let mut loras = Vec::new();
        let (guider, class) = self.part(id, "guider", &["CFGGuider", "BasicGuider"], depth)?;
        let model = self.model(guider, "model", known, depth + 1, &mut loras)?;
        let (positive, negative, cfg) = if class == "CFGGuider" {
            let positive = self.conditioning(guider, "positive", known, depth + 1)?;
            let negative = self.conditioning(guider, "negative", known, depth + 1)?;
            (positive, negative, self.number(guider, "cfg", 0.0, 100.0)?)
        } else {
            let positive = self.conditioning(guider, "conditioning", known, depth + 1)?;
            let negative = Conditioning::of("", positive.left_out);
            (positive, negative, 1.0)
        };
        let seed = whole_of(self.input(noise, "noise_seed")?).filter(|seed| (-1..=i128::from(u64::MAX)).contains(seed));
        let (start, copies) = self.start(id, known, depth)?;
        Ok(Sampling {
            node: id.to_owned(),
            model,
            seed: seed.ok_or_else(|| self.not_possible(noise, "noise_seed", "use a whole number"))?,
            steps: left,
            cfg,
            sampler: self.text(sampler, "sampler_name")?.to_owned(),
            scheduler: self.text(sigmas, "scheduler")?.to_owned(),
            // A little less, so that the whole number of steps comes out again.
            denoise: if left == steps {
                1.0
            } else {
                left as f64 / (steps as f64 + 1e-3)
            },
            positive,
            negative,
            loras,
            start,
            copies,
        })
    }

    /// The scheduler's node, its steps, and how many of them are taken.
    fn sigmas(&self, of: &str, depth: usize) -> Result<(&str, usize, usize), Refusal> {
        let (mut id, class) = self.part(of, "sigmas", &["BasicScheduler", "SplitSigmas"], depth)?;
        let mut skipped = 0;
        if class == "SplitSigmas" {
            self.expect(of, "sigmas", "SplitSigmas", 1, depth)?;
            skipped = self.whole(id, "step", 0, 9_999)?;
            id = self.part(id, "sigmas", &["BasicScheduler"], depth + 1)?.0;
        }
        if self.number(id, "denoise", 0.0, 1.0)? < 1.0 {
            return Err(self.not_possible(id, "denoise", "use 1, and SplitSigmas for a part of the way"));
        }
        let steps = self.whole(id, "steps", 1, 10_000)?;
        let left = steps.checked_sub(skipped).filter(|left| *left > 0);
        let left = left.ok_or_else(|| self.not_possible(of, "sigmas", "SplitSigmas leaves no step of them"))?;
        Ok((id, steps, left))
    }

    /// The node that an input comes from, which is of one of these classes.
    fn part(&self, of: &str, input: &str, wanted: &[&str], depth: usize) -> Result<(&str, &str), Refusal> {
        let (id, class, _) = self.link(of, input, depth)?;
        if wanted.contains(&class) {
            return Ok((id, class));
        }
        Err(self.misfit(of, input, &format!("that of {}", wanted.join(" or ")), class))
    }

    /// What a sampler starts from, and how many times.
    pub(super) fn start(&self, sampler: &str, known: &Known, depth: usize) -> Result<(Start, usize), Refusal> {
        let (mut of, mut input, mut copies, mut deep) = (sampler, "latent_image", 1, depth);
        while let (id, "RepeatLatentBatch", _) = self.link(of, input, deep)? {
            copies *= self.whole(id, "amount", 1, 64)?;
            (of, input, deep) = (id, "samples", deep + 1);
            if copies > 64 {
                return Err(self.not_possible(id, "amount", "use at most 64 in all"));
            }
        }
        let start = match self.latent(of, input, known, deep)? {
            Latent::Start(start) => start,
            // Their pictures are: what the autoencoder loses is little.
            Latent::Sampled(sampling) => Start::Picture(Image::Sampled(sampling)),
        };
        Ok((start, copies))
    }

    pub(super) fn number(&self, id: &str, input: &str, least: f64, most: f64) -> Result<f64, Refusal> {
        let value = self.input(id, input)?;
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        let possible = number.filter(|n| (least..=most).contains(n));
        possible.ok_or_else(|| self.not_possible(id, input, &format!("use {least} to {most}")))
    }
}

/// Keeps a picture under the client's id.
pub(super) async fn put_image(
    State(app): State<App>,
    Path(id): Path<String>,
    request: HttpRequest,
) -> Result<Json<Value>, Refusal> {
    let is_id = (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !is_id {
        let message = format!("{:?} is no id: use 1 to 64 letters, digits and dashes", short(&id, 70));
        return Err(Refusal::field("id", message));
    }
    let bytes = body::read(request.into_body()).await?;
    // What is no picture is said at once, and not when it is asked for.
    Packed::open(&app, bytes.clone()).await?;
    app.comfy_shelf.put(Folder::Cache, &id, bytes);
    Ok(Json(json!({"status": "success"})))
}

/// A picture that was put here, or painted.
pub(super) async fn image(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let Some(file) = app.comfy_shelf.get(Folder::Cache, &id) else {
        let message = format!("there is no picture {:?} here", short(&id, 60));
        return Err(Refusal::new(StatusCode::NOT_FOUND, message));
    };
    Ok(([(header::CONTENT_TYPE, kind(&file))], file).into_response())
}
