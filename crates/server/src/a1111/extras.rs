//! `extra-single-image` and `extra-batch-images`: pictures made larger.

use crate::app::App;
use crate::body;
use crate::numbers::{number, whole};
use crate::pictures::{Packed, from_base64, to_base64};
use crate::refusal::Refusal;
use crate::upscalers::Upscaler;
use axum::Json;
use axum::extract::{Request, State};
use prima_picture::{Format, QUALITY, encode_layer};
use serde::Deserialize;
use serde_json::{Value, json};

/// What both routes are told; only fields that say which picture differ.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Extra {
    image: String,
    #[serde(rename = "imageList")]
    image_list: Vec<Listed>,
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

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Listed {
    data: String,
}

/// A request as it came, and the files of its pictures.
struct Asked {
    extra: Extra,
    files: Vec<Vec<u8>>,
}

fn read(body: &[u8], is_batch: bool) -> Result<Asked, Refusal> {
    let mut extra: Extra = body::json(body)?;
    let (field, images) = if is_batch {
        let list = std::mem::take(&mut extra.image_list);
        ("imageList", list.into_iter().map(|listed| listed.data).collect())
    } else {
        ("image", vec![std::mem::take(&mut extra.image)])
    };
    let files = images.iter().map(|image| from_base64(field, image));
    let files = files.collect::<Result<_, _>>()?;
    Ok(Asked { extra, files })
}

pub(super) async fn single_image(State(app): State<App>, request: Request) -> Result<Json<Value>, Refusal> {
    let asked = body::understood(&app.workshop, request, |body| read(body, false)).await?;
    let images = all(&app, asked).await?;
    Ok(Json(json!({"html_info": "", "image": images.first()})))
}

pub(super) async fn batch_images(State(app): State<App>, request: Request) -> Result<Json<Value>, Refusal> {
    let asked = body::understood(&app.workshop, request, |body| read(body, true)).await?;
    let most = app.limits().variants;
    if asked.files.is_empty() || asked.files.len() > most {
        let message = format!("imageList has {} images: use 1 to {most}", asked.files.len());
        return Err(Refusal::field("imageList", message));
    }
    Ok(Json(json!({"html_info": "", "images": all(&app, asked).await?})))
}

/// Every picture larger, as base64; one after the other.
async fn all(app: &App, asked: Asked) -> Result<Vec<String>, Refusal> {
    let upscaler = asked.extra.upscaler_1.as_deref().filter(|name| !name.is_empty());
    let upscaler = app.upscalers.named("upscaler_1", upscaler.unwrap_or("None"))?;
    let mut images = Vec::new();
    for file in asked.files {
        images.push(one(app, asked.extra.clone(), file, upscaler.clone()).await?);
    }
    Ok(images)
}

impl Extra {
    fn size(&self, (width, height): (usize, usize)) -> (usize, usize) {
        if self.resize_mode == Some(1) {
            let side = |side: Option<usize>| side.unwrap_or(512);
            return (side(self.upscaling_resize_w), side(self.upscaling_resize_h));
        }
        let scaled = |side: usize| {
            (side as f64 * self.upscaling_resize.unwrap_or(2.0))
                .round()
                .clamp(0.0, 1e9) as usize
        };
        (scaled(width), scaled(height))
    }
}

async fn one(app: &App, extra: Extra, file: Vec<u8>, upscaler: Upscaler) -> Result<String, Refusal> {
    let packed = Packed::open(app, file).await?;
    let from = (packed.header.width, packed.header.height);
    let (width, height) = extra.size(from);
    let most = app.limits().image_pixels;
    if width == 0 || height == 0 || width.saturating_mul(height) > most {
        let message = format!("{width}x{height} is not possible: use at least 1x1 and at most {most} pixels");
        return Err(Refusal::field("upscaling_resize", message));
    }
    let resizing = packed.bytes_to_resize(|from| extra.size(from));
    let enlarging = packed.header.decode_bytes + upscaler.bytes(from, (width, height));
    // The PNG and its base64 are no larger together than 8 bytes a pixel, 11 with transparency.
    let bytes = resizing.max(enlarging) + 11 * width * height;
    let upscalers = app.upscalers.clone();
    app.workshop
        .run(bytes, move || {
            let layer = packed.decode_layer()?;
            let size = extra.size((layer.picture.width, layer.picture.height));
            let larger = upscalers.enlarged(&layer, size, &upscaler)?;
            Ok(to_base64(&encode_layer(&larger, Format::Png, QUALITY, None)?))
        })
        .await
}
