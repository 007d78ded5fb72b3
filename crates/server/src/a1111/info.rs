//! `png-info` and `extra-single-image`.

use crate::app::App;
use crate::body;
use crate::pictures::{Packed, from_base64, metadata_bytes, to_base64};
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

#[derive(Deserialize)]
#[serde(default)]
struct Extra {
    image: String,
    resize_mode: u8,
    upscaling_resize: f64,
    upscaling_resize_w: usize,
    upscaling_resize_h: usize,
    upscaler_1: String,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            image: String::new(),
            resize_mode: 0,
            upscaling_resize: 2.0,
            upscaling_resize_w: 512,
            upscaling_resize_h: 512,
            upscaler_1: "None".to_owned(),
        }
    }
}

/// What is asked for, and the picture's bytes.
fn read_extra(body: &[u8]) -> Result<(Extra, Vec<u8>), Refusal> {
    let mut wanted: Extra = body::json(body)?;
    if !["None", "Lanczos", "Nearest"].contains(&wanted.upscaler_1.as_str()) {
        let message = format!(
            "there is no upscaler {:?} here: use None, Lanczos or Nearest",
            short(&wanted.upscaler_1, 60)
        );
        return Err(Refusal::field("upscaler_1", message));
    }
    let image = from_base64("image", &std::mem::take(&mut wanted.image))?;
    Ok((wanted, image))
}

/// Makes a picture larger by interpolation; there is no network for it yet.
pub(super) async fn extra_single_image(State(app): State<App>, request: Request) -> Result<Json<Value>, Refusal> {
    let (wanted, image) = body::understood(&app.workshop, request, read_extra).await?;
    let packed = Packed::open(&app, image).await?;
    let nearest = wanted.upscaler_1 == "Nearest";
    let size = move |(width, height)| {
        if wanted.resize_mode == 1 {
            return (wanted.upscaling_resize_w, wanted.upscaling_resize_h);
        }
        let scaled = |side: usize| (side as f64 * wanted.upscaling_resize).round().clamp(0.0, 1e9) as usize;
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
            let (width, height) = size((picture.width, picture.height));
            let larger = if nearest {
                nearest_at(&picture, width, height)
            } else {
                picture.resized(width, height)
            };
            Ok(to_base64(&encode(&larger, Format::Png, QUALITY, None)?))
        })
        .await?;
    Ok(Json(json!({"html_info": "", "image": encoded})))
}

fn nearest_at(picture: &Picture, width: usize, height: usize) -> Picture {
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let from = 3 * (y * picture.height / height * picture.width + x * picture.width / width);
            rgb.extend_from_slice(&picture.rgb[from..from + 3]);
        }
    }
    Picture { width, height, rgb }
}
