//! The web UI's API, `/sdapi/v1/*`, as its clients use it.

mod controlnet;
mod extras;
mod fields;
mod hires;
pub(crate) mod images;
pub(crate) mod info;
mod inpainting;
mod lists;
mod names;
mod scripts;
mod tasks;

use crate::app::App;
use axum::Router;
use axum::routing::{get, post};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/sdapi/v1/txt2img", post(images::txt2img))
        .route("/sdapi/v1/img2img", post(images::img2img))
        .route("/controlnet/model_list", get(controlnet::models))
        .route("/controlnet/module_list", get(controlnet::modules))
        .route("/sdapi/v1/extra-single-image", post(extras::single_image))
        .route("/sdapi/v1/extra-batch-images", post(extras::batch_images))
        .route("/sdapi/v1/png-info", post(info::png_info))
        .route("/sdapi/v1/progress", get(tasks::progress))
        .route("/sdapi/v1/interrupt", post(tasks::interrupt))
        .route("/sdapi/v1/skip", post(tasks::skip))
        .route("/sdapi/v1/options", get(lists::options).post(lists::set_options))
        .route("/sdapi/v1/cmd-flags", get(lists::cmd_flags))
        .route("/sdapi/v1/samplers", get(lists::samplers))
        .route("/sdapi/v1/schedulers", get(lists::schedulers))
        .route("/sdapi/v1/upscalers", get(lists::upscalers))
        .route("/sdapi/v1/latent-upscale-modes", get(lists::nothing))
        .route("/sdapi/v1/sd-models", get(lists::sd_models))
        .route("/sdapi/v1/sd-vae", get(lists::nothing))
        .route("/sdapi/v1/hypernetworks", get(lists::nothing))
        .route("/sdapi/v1/face-restorers", get(lists::nothing))
        .route("/sdapi/v1/realesrgan-models", get(lists::realesrgan_models))
        .route("/sdapi/v1/prompt-styles", get(lists::nothing))
        .route("/sdapi/v1/loras", get(lists::loras))
        .route("/sdapi/v1/scripts", get(lists::scripts))
        .route("/sdapi/v1/script-info", get(lists::nothing))
        .route("/sdapi/v1/embeddings", get(lists::embeddings))
        .route("/sdapi/v1/memory", get(lists::memory))
        .route("/sdapi/v1/refresh-checkpoints", post(lists::refreshed))
        .route("/sdapi/v1/refresh-vae", post(lists::refreshed))
        .route("/sdapi/v1/refresh-loras", post(lists::refresh_loras))
}
