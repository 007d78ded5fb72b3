//! Who asks, and whether they may.

use super::App;
use super::refusal::{Refusal, refusal};
use crate::accounts::{Charged, Key, Over};
use crate::job::digest;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::net::SocketAddr;
use subtle::ConstantTimeEq;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Whose jobs these are: a key's name, or from the token, or `anyone`.
    pub account: String,
    /// Whose requests go to the same worker.
    pub place: String,
    /// The key of a stranger, whose limits hold. Whoever has the gateway's own token has none.
    pub key: Option<Key>,
}

/// What the page itself is made of, which shows nothing of anybody's.
fn is_open(path: &str) -> bool {
    const OPEN: [&str; 6] = ["/", "/index.html", "/icon.svg", "/healthz", "/readyz", "/openapi.json"];
    OPEN.contains(&path) || path.starts_with("/js/") || path.starts_with("/css/")
}

/// What a key opens: pictures, one's own jobs, live sessions and lists. A worker's settings, and what it tells of all that it is at
/// (progress, interruption, ComfyUI's queue and history), are one for all its clients, and not for strangers.
fn is_for_keys(method: &Method, path: &str) -> bool {
    const READS: [&str; 3] = ["/studio/read-png", "/studio/animation", "/sdapi/v1/png-info"];
    const OF_ALL: [&str; 2] = ["/sdapi/v1/progress", "/sdapi/v1/memory"];
    if is_open(path) || path == "/live" || path == "/jobs" || path.starts_with("/jobs/") {
        return true;
    }
    if *method == Method::POST {
        return super::paints(path) || READS.contains(&path);
    }
    let lists = ["/v1/models", "/sdapi/v1/", "/controlnet/"];
    *method == Method::GET && lists.iter().any(|list| path.starts_with(list)) && !OF_ALL.contains(&path)
}

/// Workers' addresses are resolved as URLs, in which a segment of dots, also as `%2e`, leads elsewhere than it seems: to what is
/// not open.
fn leads_elsewhere(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".");
    path.split(['/', '\\']).any(|segment| segment == "." || segment == "..")
}

/// Who may not ask is refused before the request's body is read.
impl FromRequestParts<App> for Client {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let admitted = admit(app, parts).await;
        admitted.inspect_err(|refusal| app.metrics.refused.with_label_values(&[refusal.code()]).inc())
    }
}

async fn admit(app: &App, parts: &Parts) -> Result<Client, Refusal> {
    let (headers, uri) = (&parts.headers, &parts.uri);
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    check_origin(headers)?;
    if leads_elsewhere(uri.path()) {
        return Err(refusal(StatusCode::BAD_REQUEST, "a path has no segments of dots"));
    }
    let place = address.map_or_else(String::new, |address| address.ip().to_string());
    let client = |account: String, key| Client { account, place, key };
    if app.options.token.is_none() && app.options.accounts.is_none() {
        return Ok(client("anyone".into(), None));
    }
    let given = given_tokens(headers, uri);
    if let Some(token) = &app.options.token
        && given
            .iter()
            .any(|given| given.as_bytes().ct_eq(token.as_bytes()).into())
    {
        return Ok(client(digest(token), None));
    }
    if let Some(accounts) = &app.options.accounts {
        for given in &given {
            let Some(key) = accounts.whose(given).await? else {
                continue;
            };
            if !is_for_keys(&parts.method, uri.path()) {
                let message =
                    "this is one for all clients of a worker, and not for keys; GET /jobs says how your own jobs are";
                return Err(refusal(StatusCode::FORBIDDEN, message).with_code("not_for_keys"));
            }
            return Ok(client(key.name.clone(), Some(key)));
        }
    }
    if is_open(uri.path()) {
        return Ok(client("anyone".into(), None));
    }
    let message = if given.is_empty() {
        "a key is wanted, as `Authorization: Bearer KEY` or `?token=KEY`"
    } else {
        "this key is not known, or not any more"
    };
    Err(refusal(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key"))
}

/// Pages of other sites may not use the gateway.
fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(ORIGIN) else { return Ok(()) };
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    if Some(host) == text(HOST) {
        return Ok(());
    }
    let message = format!("pages of {origin} may not use this server");
    Err(refusal(StatusCode::FORBIDDEN, message).with_code("foreign_origin"))
}

impl Client {
    /// The client's place in the queue, as a subject's token.
    pub fn lane(&self) -> String {
        // Without keys, addresses take turns.
        let of = if self.key.is_some() { "" } else { &self.place };
        digest(&format!("{}\n{of}", self.account))[..16].to_owned()
    }

    /// Takes one from the key's rate.
    pub async fn take(&self, app: &App) -> Result<(), Refusal> {
        let (Some(accounts), Some(key)) = (&app.options.accounts, &self.key) else {
            return Ok(());
        };
        let Err(wait) = accounts.take(key).await? else {
            return Ok(());
        };
        let message = format!("this key may begin {} jobs a minute", key.limits.per_minute);
        Err(refusal(StatusCode::TOO_MANY_REQUESTS, message)
            .with_code("rate_limit_exceeded")
            .again_in(wait))
    }

    /// Counts a job of so many pictures, if the key's quotas have room for it.
    pub async fn charge(&self, app: &App, job: &str, path: &str, pictures: u32) -> Result<(), Refusal> {
        let (Some(accounts), Some(key)) = (&app.options.accounts, &self.key) else {
            return Ok(());
        };
        let Charged::Over(Over {
            period,
            limit,
            again_in,
        }) = accounts.charge(key, job, path, pictures).await?
        else {
            return Ok(());
        };
        let message = format!("this key may have {limit} pictures a {period}, and {pictures} more are too many");
        Err(refusal(StatusCode::TOO_MANY_REQUESTS, message)
            .with_code("insufficient_quota")
            .again_in(again_in))
    }
}

/// Refuses prompts with words that are not wanted.
pub(super) fn check_words(app: &App, prompts: &[String]) -> Result<(), Refusal> {
    let Some(found) = prompts.iter().find_map(|prompt| app.options.words.blocked(prompt)) else {
        return Ok(());
    };
    let message = format!("{found:?} is not painted here");
    Err(refusal(StatusCode::BAD_REQUEST, message).with_code("content_policy_violation"))
}

/// As a bearer, as the password of the basic scheme that A1111's clients speak, and as `?token=`.
fn given_tokens(headers: &HeaderMap, uri: &Uri) -> Vec<String> {
    let mut found = Vec::new();
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((scheme, value)) = authorization.and_then(|value| value.split_once(' ')) {
        if scheme.eq_ignore_ascii_case("bearer") {
            found.push(value.trim().to_owned());
        } else if scheme.eq_ignore_ascii_case("basic") {
            let decoded = BASE64_STANDARD.decode(value.trim()).ok();
            let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            found.extend(decoded.and_then(|pair| Some(pair.split_once(':')?.1.to_owned())));
        }
    }
    let pairs = uri.query().unwrap_or("").split('&');
    found.extend(pairs.filter_map(|pair| pair.strip_prefix("token=")).map(str::to_owned));
    found
}

/// A path with its query, less the token, which was the gateway's.
pub(super) fn without_token(uri: &Uri) -> String {
    let pairs = uri.query().unwrap_or("").split('&');
    let kept: Vec<&str> = pairs
        .filter(|pair| !pair.is_empty() && !pair.starts_with("token="))
        .collect();
    if kept.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{}", uri.path(), kept.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_the_query_goes_no_further() {
        let left = |uri: &str| without_token(&uri.parse().unwrap());
        assert_eq!(left("/a?token=secret"), "/a");
        assert_eq!(left("/a?x=1&token=secret&y=2"), "/a?x=1&y=2");
        assert_eq!(left("/a"), "/a");
    }

    #[test]
    fn a_path_with_segments_of_dots_is_seen() {
        for path in [
            "/js/../metrics",
            "/js/%2e%2E/metrics",
            "/js/.%2e/metrics",
            "/js/..",
            "/a/./b",
            "/js/..\\x",
        ] {
            assert!(leads_elsewhere(path), "{path}");
        }
        for path in ["/", "/js/live.js", "/v1/models/a..b", "/v1/models/..."] {
            assert!(!leads_elsewhere(path), "{path}");
        }
    }

    #[test]
    fn keys_open_what_is_one_s_own_and_nothing_that_all_share() {
        let opens = |method: &str, path: &str| is_for_keys(&method.parse().unwrap(), path);
        for (method, path) in [
            ("POST", "/v1/images/generations"),
            ("POST", "/sdapi/v1/txt2img"),
            ("GET", "/sdapi/v1/samplers"),
            ("GET", "/v1/models"),
            ("GET", "/jobs"),
            ("DELETE", "/jobs/ab"),
            ("GET", "/live"),
            ("GET", "/js/live.js"),
        ] {
            assert!(opens(method, path), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/sdapi/v1/options"),
            ("POST", "/sdapi/v1/interrupt"),
            ("GET", "/sdapi/v1/progress"),
            ("GET", "/metrics"),
            ("POST", "/prompt"),
            ("GET", "/history"),
            ("GET", "/api/view"),
            ("GET", "/ws"),
        ] {
            assert!(!opens(method, path), "{method} {path}");
        }
    }
}
