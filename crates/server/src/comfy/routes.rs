//! The handlers beside the socket.

use super::graph::{Graph, Known};
use super::nodes::{Choices, described};
use super::prompts::Asked;
use super::run;
use super::shelf::{Folder, file_name, kind};
use super::wanted::{Image, Output, Start};
use crate::app::App;
use crate::body::{self, form};
use crate::metrics::resident_bytes;
use crate::numbers::whole_of;
use crate::pictures::Packed;
use crate::refusal::{Refusal, short};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prima_engine::Found;
use prima_picture::Picture;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Submission {
    prompt: Option<Map<String, Value>>,
    client_id: Option<String>,
    prompt_id: Option<String>,
    #[serde(default)]
    front: bool,
    number: Option<Value>,
    #[serde(default)]
    extra_data: Value,
}

/// A graph, which lists and history keep.
const MOST_GRAPH_BYTES: usize = 1 << 20;
/// A client's own name for something.
const MOST_ID: usize = 200;

/// Takes a graph: what it asks for is found wrong here, or painted.
pub(super) async fn prompt(State(app): State<App>, request: HttpRequest) -> Result<Json<Value>, Refusal> {
    let wanted: Submission = body::understood(&app.workshop, request, read).await?;
    let graph = wanted.prompt.ok_or_else(no_graph)?;
    let outputs = outputs(&app, &graph)?;
    let number = app.comfy.next_number();
    let given = |id: Option<String>| id.filter(|id| !id.is_empty() && id.len() <= MOST_ID);
    let id = given(wanted.prompt_id).unwrap_or_else(new_id);
    let front = wanted.front
        || wanted
            .number
            .as_ref()
            .and_then(whole_of)
            .is_some_and(|number| number < 0);
    let asked = Asked {
        id: id.clone(),
        number,
        client: given(wanted.client_id),
        graph: Value::Object(graph),
        extra: if wanted.extra_data.is_object() {
            wanted.extra_data
        } else {
            json!({})
        },
        outputs,
    };
    run::submit(&app, asked, front)?;
    Ok(Json(json!({"prompt_id": id, "number": number, "node_errors": {}})))
}

fn read(body: &[u8]) -> Result<Submission, Refusal> {
    if body.len() > MOST_GRAPH_BYTES {
        return Err(Refusal::too_large(MOST_GRAPH_BYTES));
    }
    body::json(body)
}

fn no_graph() -> Refusal {
    Refusal::bad("prompt is missing: the graph of nodes")
}

/// What a graph ends in, which can be painted.
fn outputs(app: &App, graph: &Map<String, Value>) -> Result<Vec<Output>, Refusal> {
    let (models, _) = app.models()?;
    let loras = lora_names(app)?;
    let controlnets = app.pipeline()?.controlnets();
    let upscalers = app.upscalers.networks();
    let known = Known {
        models: &models,
        loras: &loras,
        controlnets: &controlnets,
        upscalers: &upscalers,
    };
    let outputs = Graph::new(graph)?.outputs(&known)?;
    for output in &outputs {
        check(app, &output.image)?;
    }
    Ok(outputs)
}

/// Reads a body as far as the requests that it asks for, without painting.
pub(crate) fn asked(app: &App, body: &[u8]) -> Result<(), Refusal> {
    let graph = read(body)?.prompt.ok_or_else(no_graph)?;
    outputs(app, &graph).map(drop)
}

/// Whether all of a picture's samplers whose model is in memory can be painted, and all its files are here.
fn check(app: &App, image: &Image) -> Result<(), Refusal> {
    let mut samplings = Vec::new();
    image.samplings(&mut samplings);
    let mut images = vec![image];
    for sampling in samplings {
        let picture = match &sampling.start {
            Start::Empty { .. } => None,
            Start::Picture(image) | Start::Masked(image, _) => {
                images.push(image);
                if let Start::Masked(_, masked) = &sampling.start {
                    app.comfy_shelf.named(masked.mask.name())?;
                }
                // Of any size: which, is only known when it was painted.
                Some(Picture {
                    width: 64,
                    height: 64,
                    rgb: vec![0; 64 * 64 * 3],
                })
            }
        };
        // Whatever the pictures of ControlNets are, these are read.
        images.extend(sampling.positive.steered.iter().map(|steered| &steered.image));
        // One that is not in memory begins to be read, and what is wrong is said when it is painted.
        if let Found::Ready(model) = app.engine.model(Some(&sampling.model)) {
            let pictures = run::Pictures {
                picture,
                ..run::Pictures::default()
            };
            run::request(&app.with(model), sampling, pictures)?;
        }
    }
    for image in images {
        if let Image::Loaded(name) = run::without_changes(image).0 {
            app.comfy_shelf.named(name)?;
        }
    }
    Ok(())
}

/// 128 random bits as ComfyUI writes its ids.
fn new_id() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let [a, b] = [(); 2].map(|()| RandomState::new().build_hasher().finish());
    let hex = format!("{a:016x}{b:016x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

pub(super) async fn remaining(State(app): State<App>) -> Json<Value> {
    Json(json!({"exec_info": {"queue_remaining": app.comfy.remaining()}}))
}

pub(super) async fn queue(State(app): State<App>) -> Json<Value> {
    Json(app.comfy.listed())
}

/// What is to leave a list: all of it, or some ids.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Change {
    clear: bool,
    delete: Vec<String>,
}

impl Change {
    fn names(&self) -> impl Fn(&str) -> bool {
        |id| self.clear || self.delete.iter().any(|wanted| wanted == id)
    }
}

pub(super) async fn change_queue(State(app): State<App>, request: HttpRequest) -> Result<(), Refusal> {
    let change: Change = body::understood(&app.workshop, request, body::json).await?;
    app.comfy.forget_pending(change.names());
    run::tell_remaining(&app);
    Ok(())
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Most {
    max_items: Option<usize>,
}

pub(super) async fn history(
    State(app): State<App>,
    most: Result<Query<Most>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let most = query(most)?.max_items.unwrap_or(usize::MAX);
    Ok(Json(app.comfy.history(None, most)))
}

fn query<T>(given: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    let wrong = |e: QueryRejection| Refusal::bad(format!("the query is not what this route takes: {}", e.body_text()));
    given.map(|Query(query)| query).map_err(wrong)
}

pub(super) async fn history_of(State(app): State<App>, Path(id): Path<String>) -> Json<Value> {
    Json(app.comfy.history(Some(&id), 1))
}

pub(super) async fn change_history(State(app): State<App>, request: HttpRequest) -> Result<(), Refusal> {
    let change: Change = body::understood(&app.workshop, request, body::json).await?;
    app.comfy.forget_history(change.names());
    Ok(())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Interrupted {
    prompt_id: Option<String>,
}

pub(super) async fn interrupt(State(app): State<App>, request: HttpRequest) -> Result<(), Refusal> {
    let read = |bytes: &[u8]| {
        if bytes.trim_ascii().is_empty() {
            return Ok(Interrupted::default());
        }
        body::json(bytes)
    };
    let wanted = body::understood(&app.workshop, request, read).await?;
    app.comfy.interrupt(wanted.prompt_id.as_deref());
    Ok(())
}

#[derive(Deserialize)]
pub(super) struct View {
    filename: String,
    #[serde(default, rename = "type")]
    folder: Option<String>,
}

pub(super) async fn view(
    State(app): State<App>,
    wanted: Result<Query<View>, QueryRejection>,
) -> Result<Response, Refusal> {
    let wanted = query(wanted)?;
    let folder = Folder::named(wanted.folder.as_deref().filter(|f| !f.is_empty()).unwrap_or("output"));
    let file = folder.and_then(|folder| app.comfy_shelf.get(folder, &wanted.filename));
    let Some(file) = file else {
        let message = format!("there is no picture {:?} here", short(&wanted.filename, 60));
        return Err(Refusal::new(StatusCode::NOT_FOUND, message));
    };
    Ok(([(header::CONTENT_TYPE, kind(&file))], file).into_response())
}

/// Of an upload's form.
const PARTS: usize = 10;

pub(super) async fn upload(State(app): State<App>, request: HttpRequest) -> Result<Json<Value>, Refusal> {
    let (mut image, mut overwrite, mut folder) = (None, false, Folder::Input);
    for part in form(request, PARTS).await? {
        match part.name.as_str() {
            "image" => image = Some((part.file_name.clone().unwrap_or_default(), part.bytes)),
            "overwrite" => overwrite = matches!(part.text()?.trim(), "true" | "1"),
            "type" => {
                let name = part.text()?;
                let named = Folder::named(name.trim());
                folder = named
                    .ok_or_else(|| Refusal::field("type", format!("there is no folder {:?} here", short(&name, 40))))?;
            }
            _ => {}
        }
    }
    let Some((name, bytes)) = image else {
        return Err(Refusal::field("image", "image is missing"));
    };
    // What is no picture is said at once, and not when it is asked for.
    Packed::open(&app, bytes.clone()).await?;
    let mut name = file_name(&name);
    if !overwrite {
        name = app.comfy_shelf.free_name(folder, &name);
    }
    app.comfy_shelf.put(folder, &name, bytes);
    Ok(Json(json!({"name": name, "subfolder": "", "type": folder.as_str()})))
}

fn lora_names(app: &App) -> Result<Vec<String>, Refusal> {
    let loras = app.pipeline()?.loras();
    Ok(loras.into_iter().map(|lora| lora.name).collect())
}

fn choices(app: &App) -> Result<Choices, Refusal> {
    Ok(Choices {
        models: app.models()?.0,
        loras: lora_names(app)?,
        controlnets: app.pipeline()?.controlnets(),
        upscalers: app.upscalers.networks(),
        images: app.comfy_shelf.names(Folder::Input),
    })
}

pub(super) async fn object_info(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    Ok(Json(Value::Object(described(&choices(&app)?))))
}

pub(super) async fn object_info_of(State(app): State<App>, Path(class): Path<String>) -> Result<Json<Value>, Refusal> {
    let mut all = described(&choices(&app)?);
    all.retain(|name, _| *name == class);
    Ok(Json(Value::Object(all)))
}

pub(super) async fn folders() -> Json<Value> {
    Json(json!(["checkpoints", "loras", "upscale_models"]))
}

pub(super) async fn models(State(app): State<App>, Path(folder): Path<String>) -> Result<Json<Value>, Refusal> {
    let choices = choices(&app)?;
    match folder.as_str() {
        "checkpoints" => Ok(Json(json!(choices.models))),
        "loras" => Ok(Json(json!(choices.loras))),
        "upscale_models" => Ok(Json(json!(choices.upscalers))),
        other => {
            let message = format!("there is no folder of models {:?} here", short(other, 40));
            Err(Refusal::new(StatusCode::NOT_FOUND, message))
        }
    }
}

pub(super) async fn embeddings() -> Json<Value> {
    Json(json!([]))
}

pub(super) async fn system_stats() -> Json<Value> {
    let version = format!("prima {}", env!("CARGO_PKG_VERSION"));
    let used = resident_bytes();
    Json(json!({
        "system": {
            "os": std::env::consts::OS, "ram_total": used, "ram_free": 0, "comfyui_version": version,
            "python_version": "", "pytorch_version": "", "embedded_python": false, "argv": [],
        },
        "devices": [{
            "name": "prima", "type": "cpu", "index": 0, "vram_total": used, "vram_free": 0, "torch_vram_total": 0,
            "torch_vram_free": 0,
        }],
    }))
}
