//! `alwayson_scripts.controlnet`: the units of sd-webui-controlnet, and the lists that its clients ask for.

use crate::app::App;
use crate::masks::{Masking, Transparency, initial};
use crate::numbers::{flag, number};
use crate::pictures::from_base64;
use crate::refusal::{Refusal, short};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use prima_pipeline::{Control, MAX_CONTROLS, Preprocessor};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A unit as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Unit {
    #[serde(deserialize_with = "flag")]
    enabled: Option<bool>,
    module: Option<String>,
    model: Option<String>,
    #[serde(alias = "input_image")]
    image: Option<Value>,
    #[serde(deserialize_with = "number")]
    weight: Option<f64>,
    #[serde(deserialize_with = "number")]
    guidance_start: Option<f64>,
    #[serde(deserialize_with = "number")]
    guidance_end: Option<f64>,
}

/// The units that are turned on; their pictures are taken out of what the answer repeats.
pub(super) fn units(given: &mut Map<String, Value>) -> Result<Vec<Unit>, Refusal> {
    let scripts = given.get_mut("alwayson_scripts").and_then(Value::as_object_mut);
    let script = scripts.and_then(|scripts| scripts.iter_mut().find(|(name, _)| is_controlnet(name)));
    let args = script.and_then(|(_, script)| script.get_mut("args")?.as_array_mut());
    let mut units = Vec::new();
    for arg in args.into_iter().flatten().filter(|arg| arg.is_object()) {
        let unit = Unit::deserialize(&*arg).map_err(crate::body::not_taken)?;
        for field in ["image", "input_image", "mask"] {
            arg.as_object_mut().and_then(|arg| arg.remove(field));
        }
        if unit.enabled.unwrap_or(true)
            && unit
                .model
                .as_deref()
                .is_some_and(|model| !["", "None"].contains(&model))
        {
            units.push(unit);
        }
    }
    if units.len() > MAX_CONTROLS {
        let message = format!(
            "{} units of ControlNet are too many: use at most {MAX_CONTROLS}",
            units.len()
        );
        return Err(Refusal::field("alwayson_scripts", message));
    }
    Ok(units)
}

pub(super) fn is_controlnet(script: &str) -> bool {
    script.eq_ignore_ascii_case("controlnet")
}

impl Unit {
    /// What it asks for; a unit without a picture reads the one that is painted over, `init`.
    pub async fn control(
        &self,
        app: &App,
        size: (Option<usize>, Option<usize>),
        init: Option<&[u8]>,
    ) -> Result<Control, Refusal> {
        // Older clients send a picture with a mask that is of no use here.
        let text = self.image.as_ref().map(|image| image.get("image").unwrap_or(image));
        let bytes = match (text.and_then(Value::as_str).filter(|text| !text.is_empty()), init) {
            (Some(text), _) => from_base64("image", text)?,
            (None, Some(init)) => init.to_vec(),
            (None, None) => {
                let message = "a unit of ControlNet has no image: send one, in base64";
                return Err(Refusal::field("alwayson_scripts", message));
            }
        };
        let masking = Masking::new(None::<Bytes>, size, Transparency::Stays);
        let (picture, _) = initial(app, bytes, masking).await?;
        Ok(Control {
            preprocessor: preprocessor(self.module.as_deref().unwrap_or("none"))?,
            scale: self.weight.unwrap_or(1.0),
            start: self.guidance_start.unwrap_or(0.0),
            end: self.guidance_end.unwrap_or(1.0),
            // Names carry a hash in brackets.
            ..Control::new(named(app, self.model.as_deref().unwrap_or_default())?, picture)
        })
    }
}

/// The ControlNet that a client means: by its name, also with a hash behind it.
fn named(app: &App, model: &str) -> Result<String, Refusal> {
    let plain = model.rsplit_once(" [").map_or(model, |(name, _)| name);
    let all = app.pipeline()?.controlnets();
    let found = all.iter().find(|name| [model, plain].contains(&name.as_str()));
    found.cloned().ok_or_else(|| {
        let message = format!(
            "there is no ControlNet {:?} here, but {}",
            short(model, 60),
            if all.is_empty() {
                "none".to_owned()
            } else {
                all.join(", ")
            }
        );
        Refusal::field("alwayson_scripts", message)
    })
}

fn preprocessor(module: &str) -> Result<Preprocessor, Refusal> {
    let lower = module.to_lowercase();
    match lower.as_str() {
        "" | "none" => Ok(Preprocessor::None),
        "canny" => Ok(Preprocessor::Canny),
        _ if lower.starts_with("scribble") || lower.starts_with("invert") => Ok(Preprocessor::Scribble),
        _ => {
            let message = format!(
                "the ControlNet module {:?} is not computed here: send its map as the image, with module none",
                short(module, 60)
            );
            Err(Refusal::field("alwayson_scripts", message))
        }
    }
}

pub(super) async fn models(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    Ok(Json(json!({"model_list": app.pipeline()?.controlnets()})))
}

pub(super) async fn modules() -> Json<Value> {
    let names = Preprocessor::ALL.map(Preprocessor::name);
    Json(json!({"module_list": names, "module_detail": {}}))
}
