//! The page: a pair, two questions, the next pair. For browsers of this machine alone.

use crate::{Answer, Error, Pair, Pairs, Results, Vote, Votes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use fastrand::Rng;
use prima_picture::{Format, Picture, encode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

/// Pairs that are shown and not voted on yet, at most; the oldest go.
const OPEN: usize = 256;
/// Letters of a voter's name.
const NAME: usize = 64;

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                   form-action 'none'; frame-ancestors 'none'";

/// How votes are asked for.
#[derive(Clone, Debug)]
pub struct ArenaOptions {
    /// After so many votes of a voter the page says that it is enough.
    pub wanted: usize,
    /// Which pairs and sides; by the clock where absent.
    pub seed: Option<u64>,
}

/// What is shown to somebody now.
struct Shown {
    pairs: Pairs,
    open: BTreeMap<u64, Pair>,
    next: u64,
    random: Rng,
}

#[derive(Clone)]
struct Arena {
    shown: Arc<Mutex<Shown>>,
    votes: Votes,
    wanted: usize,
}

/// Serves the page on `listener` until `shutdown`; votes go to `votes`, and those that are there already count.
pub async fn serve(
    listener: TcpListener,
    pairs: Pairs,
    votes: Votes,
    options: ArenaOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let mut shown = Shown {
        pairs,
        open: BTreeMap::new(),
        next: 0,
        random: options.seed.map_or_else(Rng::new, Rng::with_seed),
    };
    for vote in votes.all().await? {
        shown.pairs.count(vote.kind, &vote.models, &vote.prompt);
    }
    let arena = Arena {
        shown: Arc::new(Mutex::new(shown)),
        votes: votes.clone(),
        wanted: options.wanted,
    };
    axum::serve(listener, router(arena))
        .with_graceful_shutdown(shutdown)
        .await?;
    votes.close().await;
    Ok(())
}

fn router(arena: Arena) -> Router {
    let file =
        |kind: &'static str, text: &'static str| get(move || async move { ([(header::CONTENT_TYPE, kind)], text) });
    Router::new()
        .route(
            "/",
            file("text/html; charset=utf-8", include_str!("../page/index.html")),
        )
        .route(
            "/arena.css",
            file("text/css; charset=utf-8", include_str!("../page/arena.css")),
        )
        .route(
            "/arena.js",
            file("text/javascript; charset=utf-8", include_str!("../page/arena.js")),
        )
        .route("/pair", get(pair))
        .route("/pair/{number}/{side}", get(picture))
        .route("/vote", post(vote))
        .route("/results", get(results))
        .route("/votes.json", get(votes_json))
        .route("/votes.csv", get(votes_csv))
        .layer(from_fn(guard))
        .with_state(arena)
}

/// Names of this machine only (a foreign name that leads here is no way in), writing from the page's own origin only, and what
/// browsers are told to enforce.
async fn guard(request: Request, next: Next) -> Response {
    if !is_own(request.headers(), request.method()) {
        return refusal(
            StatusCode::FORBIDDEN,
            "this page answers to its own address on this machine only",
        );
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn is_own(headers: &HeaderMap, method: &Method) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, _)| name)
        .trim_matches(['[', ']']);
    let is_here = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let origin = text(header::ORIGIN);
    is_here && (method == Method::GET || origin.is_none_or(|origin| origin.strip_prefix("http://") == Some(host)))
}

fn refusal(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

fn failed(error: &Error) -> Response {
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    refusal(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}{cause}"))
}

impl Arena {
    fn shown<T>(&self, use_it: impl FnOnce(&mut Shown) -> T) -> T {
        // What it holds is whole after each change.
        use_it(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Deserialize)]
struct Voter {
    #[serde(default)]
    voter: String,
}

/// A pair by its number, without a word of who painted it.
async fn pair(State(arena): State<Arena>, Query(Voter { voter }): Query<Voter>) -> Response {
    let done = match arena.votes.cast_by(&voter).await {
        Ok(done) => done,
        Err(error) => return failed(&error),
    };
    let (number, prompt) = arena.shown(|shown| {
        let pair = shown.pairs.next(&mut shown.random);
        let prompt = pair.prompt.clone();
        shown.next += 1;
        shown.open.insert(shown.next, pair);
        while shown.open.len() > OPEN {
            shown.open.pop_first();
        }
        (shown.next, prompt)
    });
    Json(json!({ "pair": number, "prompt": prompt, "done": done, "wanted": arena.wanted })).into_response()
}

/// One side's pixels, as a PNG that says nothing else.
async fn picture(State(arena): State<Arena>, Path((number, side)): Path<(u64, String)>) -> Response {
    let side = match side.as_str() {
        "left" => 0,
        "right" => 1,
        _ => return refusal(StatusCode::NOT_FOUND, "a pair has a left and a right picture"),
    };
    let Some(path) = arena.shown(|shown| shown.open.get(&number).map(|pair| pair.sides[side].1.clone())) else {
        return refusal(StatusCode::NOT_FOUND, "this pair is not shown any more");
    };
    let read = tokio::task::spawn_blocking(move || -> Result<Vec<u8>, Error> {
        let bytes = std::fs::read(&path).map_err(Error::file(&path))?;
        let picture = Picture::decode(&bytes, &path.display().to_string())?;
        Ok(encode(&picture, Format::Png, 100, None)?)
    });
    match read.await {
        Ok(Ok(png)) => ([(header::CONTENT_TYPE, "image/png")], png).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the picture could not be read"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cast {
    pair: u64,
    voter: String,
    follows: Answer,
    prettier: Answer,
    took_ms: i64,
}

/// A pair is voted on once.
async fn vote(State(arena): State<Arena>, Json(cast): Json<Cast>) -> Response {
    if cast.voter.chars().count() > NAME {
        return refusal(StatusCode::BAD_REQUEST, "a voter's name has at most 64 letters");
    }
    let Some(pair) = arena.shown(|shown| shown.open.remove(&cast.pair)) else {
        return refusal(
            StatusCode::CONFLICT,
            "this pair is not shown any more, or was voted on before",
        );
    };
    let vote = Vote::of(&pair, cast.voter.trim(), [cast.follows, cast.prettier], cast.took_ms);
    if let Err(error) = arena.votes.cast(&vote).await {
        arena.shown(|shown| shown.open.insert(cast.pair, pair));
        return failed(&error);
    }
    arena.shown(|shown| shown.pairs.count(vote.kind, &vote.models, &vote.prompt));
    Json(Value::Null).into_response()
}

async fn results(State(arena): State<Arena>) -> Response {
    let votes = match arena.votes.all().await {
        Ok(votes) => votes,
        Err(error) => return failed(&error),
    };
    match tokio::task::spawn_blocking(move || Results::of(&votes)).await {
        Ok(results) => Json(results).into_response(),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the votes could not be counted"),
    }
}

async fn votes_json(State(arena): State<Arena>) -> Response {
    match arena.votes.all().await {
        Ok(votes) => Json(votes).into_response(),
        Err(error) => failed(&error),
    }
}

async fn votes_csv(State(arena): State<Arena>) -> Response {
    let written = arena.votes.all().await.and_then(|votes| Results::csv(&votes));
    match written {
        Ok(csv) => ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv).into_response(),
        Err(error) => failed(&error),
    }
}
