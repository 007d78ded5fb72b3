//! `png-info` and `extra-single-image`.

use crate::app::App;
use crate::body;
use crate::numbers::{number, whole};
use crate::pictures::{Packed, from_base64, metadata_bytes, nearest_at, to_base64};
use crate::refusal::{Refusal, short};
use axum::Json;
use axum::extract::{Request, State};
use prima_picture::{Format, Picture, QUALITY, encode, read_parameters};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct PngInfo {
    image: String,
}

pub(super) async fn png_info(State(app): State<App>, request: Request) -> Result<Json<Value>, Refusal> {
    let bytes = body::understood(&app.workshop, request, png_of).await?;
    let found = app
        .workshop
        .run(metadata_bytes(&bytes), move || Ok(read_parameters(&bytes)?))
        .await?;
    let Some(parameters) = found else {
        return Ok(Json(json!({"info": "", "items": {}, "parameters": {}})));
    };
    let mut fields: Map<String, Value> = parameters.fields.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    fields.insert("Prompt".into(), json!(parameters.prompt));
    fields.insert("Negative prompt".into(), json!(parameters.negative_prompt));
    let text = parameters.to_text();
    Ok(Json(
        json!({"info": text, "items": {"parameters": text}, "parameters": fields}),
    ))
}

/// The file whose text is asked for.
pub(crate) fn png_of(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let wanted: PngInfo = body::json(body)?;
    from_base64("image", &wanted.image)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Extra {
    image: String,
    #[serde(deserialize_with = "whole")]
    resize_mode: Option<u8>,
    #[serde(deserialize_with = "number")]
    upscaling_resize: Option<f64>,
    #[serde(deserialize_with = "whole")]
    upscaling_resize_w: Option<usize>,
    #[serde(deserialize_with = "whole")]
    upscaling_resize_h: Option<usize>,
    upscaler_1: Option<String>,
}

/// How a picture is made larger; there is no network for it yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Upscaler {
    Lanczos,
    Nearest,
    /// The web UI's default of the hires fix; enlarged as a picture all the same.
    Latent,
}

impl Upscaler {
    /// The names that `upscalers` lists; `None` is the web UI's word for interpolation.
    pub const LISTED: [&str; 3] = ["None", "Lanczos", "Nearest"];

    pub fn named(field: &'static str, name: &str) -> Result<Self, Refusal> {
        match name {
            "None" | "Lanczos" => Ok(Self::Lanczos),
            "Nearest" => Ok(Self::Nearest),
            name if name.starts_with("Latent") => Ok(Self::Latent),
            name => {
                let (name, listed) = (short(name, 60), Self::LISTED.join(", "));
                let message = format!("there is no upscaler {name:?} here: use one of {listed}");
                Err(Refusal::field(field, message))
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "Nearest",
            Self::Lanczos | Self::Latent => "Lanczos",
        }
    }

    /// What is not as its name says.
    pub fn said(self) -> Option<String> {
        let text = "latents are not enlarged here: the picture was, by Lanczos";
        (self == Self::Latent).then(|| text.to_owned())
    }
}

/// What is asked for, and the picture's bytes.
fn read_extra(body: &[u8]) -> Result<(Extra, Upscaler, Vec<u8>), Refusal> {
    let mut wanted: Extra = body::json(body)?;
    let upscaler = wanted.upscaler_1.as_deref().filter(|name| !name.is_empty());
    let upscaler = Upscaler::named("upscaler_1", upscaler.unwrap_or("None"))?;
    let image = from_base64("image", &std::mem::take(&mut wanted.image))?;
    Ok((wanted, upscaler, image))
}

/// Makes a picture larger by interpolation.
pub(super) async fn extra_single_image(State(app): State<App>, request: Request) -> Result<Json<Value>, Refusal> {
    let (wanted, upscaler, image) = body::understood(&app.workshop, request, read_extra).await?;
    let packed = Packed::open(&app, image).await?;
    let size = move |(width, height)| {
        if wanted.resize_mode == Some(1) {
            let side = |side: Option<usize>| side.unwrap_or(512);
            return (side(wanted.upscaling_resize_w), side(wanted.upscaling_resize_h));
        }
        let scaled = |side: usize| {
            (side as f64 * wanted.upscaling_resize.unwrap_or(2.0))
                .round()
                .clamp(0.0, 1e9) as usize
        };
        (scaled(width), scaled(height))
    };
    let (width, height) = size((packed.header.width, packed.header.height));
    let most = app.limits().image_pixels;
    if width == 0 || height == 0 || width.saturating_mul(height) > most {
        let message = format!("{width}x{height} is not possible: use at least 1x1 and at most {most} pixels");
        return Err(Refusal::field("upscaling_resize", message));
    }
    // The PNG and its base64 are no larger together than 8 bytes a pixel.
    let bytes = packed.bytes_to_resize(size) + 8 * width * height;
    let encoded = app
        .workshop
        .run(bytes, move || {
            let picture = packed.decode()?;
            let larger = enlarged(&picture, size((picture.width, picture.height)), upscaler);
            Ok(to_base64(&encode(&larger, Format::Png, QUALITY, None)?))
        })
        .await?;
    Ok(Json(json!({"html_info": "", "image": encoded})))
}

pub(super) fn enlarged(picture: &Picture, (width, height): (usize, usize), upscaler: Upscaler) -> Picture {
    match upscaler {
        Upscaler::Nearest => nearest_at(picture, width, height),
        Upscaler::Lanczos | Upscaler::Latent => picture.resized(width, height),
    }
}
