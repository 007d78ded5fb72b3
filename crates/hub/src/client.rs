//! The hub's answers: what a repository has, and what a file is.

use crate::{Error, Settings};
use prima_checkpoint::hub::Id;
use serde::Deserialize;
use std::sync::Arc;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

/// The largest answer about a repository; those of thousands of files are a few megabytes.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// Relative redirects of an answer about a file: a repository may have been renamed more than once.
const MAX_REDIRECTS: usize = 5;

pub(crate) struct Client<'a> {
    agent: Agent,
    pub settings: &'a Settings,
}

/// What a repository has at a revision.
#[derive(Deserialize)]
pub(crate) struct Contents {
    /// The commit.
    pub sha: String,
    pub siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
pub(crate) struct Sibling {
    pub rfilename: String,
}

/// What a file is.
#[derive(Debug)]
pub(crate) struct FileFacts {
    pub etag: String,
    pub size: u64,
}

impl<'a> Client<'a> {
    pub fn new(settings: &'a Settings) -> Result<Self, Error> {
        let roots = match &settings.certificates {
            None => RootCerts::WebPki,
            Some(path) => {
                let pem = std::fs::read(path).map_err(Error::io("read", path))?;
                let certificates = parse_pem(&pem).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                RootCerts::Specific(Arc::new(certificates.collect::<Vec<Certificate<'static>>>()))
            }
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects_will_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(settings.answer_timeout))
            .timeout_recv_response(Some(settings.answer_timeout))
            .timeout_per_read(Some(settings.read_timeout))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("prima/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            agent: config.into(),
            settings,
        })
    }

    /// The repository's files and commit.
    pub fn contents(&self, id: &Id) -> Result<Contents, Error> {
        let (endpoint, repository) = (&self.settings.endpoint, &id.repository);
        let url = format!(
            "{endpoint}/api/models/{repository}/revision/{}",
            escaped(&id.revision, false)
        );
        let mut response = self
            .ask(self.agent.get(&url))
            .map_err(|error| self.unreachable(&error))?;
        if response.status() != 200 {
            return Err(self.refusal(&response, id, &id.to_string()));
        }
        let bytes = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let bytes = bytes.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| self.misunderstood(&id.to_string(), error.to_string()))
    }

    fn url(&self, id: &Id, commit: &str, file: &str) -> String {
        let (endpoint, repository) = (&self.settings.endpoint, &id.repository);
        format!("{endpoint}/{repository}/resolve/{commit}/{}", escaped(file, true))
    }

    /// What the hub says of a file before it is asked for. Where it lies elsewhere, what that place says of it is not asked.
    pub fn facts(&self, id: &Id, commit: &str, file: &str) -> Result<FileFacts, Error> {
        let mut url = self.url(id, commit, file);
        let what = format!("{}/{file}", id.repository);
        for _ in 0..MAX_REDIRECTS {
            let request = self.agent.head(&url).config().max_redirects(0).build();
            let response = self.ask(request).map_err(|error| self.unreachable(&error))?;
            let told = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
            let status = response.status();
            let moved = told("location").filter(|to| status.is_redirection() && to.starts_with('/'));
            let etag = told("x-linked-etag").or_else(|| told("etag")).map(|etag| plain(&etag));
            let size = told("x-linked-size").or_else(|| told("content-length").filter(|_| status == 200));
            match (etag, size.and_then(|size| size.parse().ok()), moved) {
                (Some(etag), Some(size), _) if status.as_u16() < 400 => {
                    // It becomes the name of a file.
                    return if is_name(&etag) {
                        Ok(FileFacts { etag, size })
                    } else {
                        Err(self.misunderstood(&what, format!("its etag is {etag:?}")))
                    };
                }
                (_, _, Some(moved)) => url = format!("{}{moved}", self.settings.endpoint),
                _ if status.as_u16() < 400 => {
                    return Err(self.misunderstood(&what, "neither etag nor size is said".to_owned()));
                }
                _ => return Err(self.refusal(&response, id, &what)),
            }
        }
        Err(self.misunderstood(&what, "it is redirected again and again".to_owned()))
    }

    /// The file from byte `from` on: the answer may also be all of it.
    pub fn body(&self, id: &Id, commit: &str, file: &str, from: u64) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(self.url(id, commit, file));
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        self.ask(request)
    }

    fn ask(&self, request: ureq::RequestBuilder<ureq::typestate::WithoutBody>) -> Result<Response<Body>, ureq::Error> {
        // What is packed on the way has another size and another hash.
        let request = request.header(header::ACCEPT_ENCODING, "identity");
        match &self.settings.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")).call(),
            None => request.call(),
        }
    }

    /// The sentence for an answer that is none.
    pub fn refusal(&self, response: &Response<Body>, id: &Id, what: &str) -> Error {
        let endpoint = self.settings.endpoint.clone();
        let repository = id.repository.clone();
        let code = response
            .headers()
            .get("x-error-code")
            .and_then(|code| code.to_str().ok());
        let has_token = self.settings.token.is_some();
        match (response.status().as_u16(), code) {
            (_, Some("GatedRepo")) if has_token => Error::NotGranted { repository, endpoint },
            (_, Some("GatedRepo")) => Error::Gated {
                repository,
                endpoint,
                token_file: self.settings.token_file.clone(),
            },
            (404, Some("RevisionNotFound")) => Error::NoRevision {
                repository,
                revision: id.revision.clone(),
            },
            (404, Some("EntryNotFound")) => Error::NoFile {
                file: what.to_owned(),
                repository,
                near: String::new(),
            },
            // The hub does not say of what is private that it exists.
            (401, _) if has_token && code != Some("RepoNotFound") => Error::Token { endpoint },
            (401 | 404, _) => Error::NoRepository { repository, endpoint },
            (403, _) => Error::NotGranted { repository, endpoint },
            (status, _) => Error::Status {
                endpoint,
                what: what.to_owned(),
                status,
            },
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Error {
        Error::Network {
            endpoint: self.settings.endpoint.clone(),
            message: error.to_string(),
        }
    }

    fn misunderstood(&self, what: &str, message: String) -> Error {
        Error::Answer {
            endpoint: self.settings.endpoint.clone(),
            what: what.to_owned(),
            message,
        }
    }
}

/// An etag without its quotes and its `W/`.
fn plain(etag: &str) -> String {
    let strong = etag.strip_prefix("W/").unwrap_or(etag);
    strong.trim_matches('"').to_ascii_lowercase()
}

fn is_name(etag: &str) -> bool {
    (1..=128).contains(&etag.len())
        && etag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// For an address: everything but letters, digits and `-._~` in percent signs, of paths the `/` too.
fn escaped(text: &str, is_path: bool) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (is_path && byte == b'/') {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
