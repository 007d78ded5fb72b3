//! How the server is run, and what clients may ask of it.

use crate::Error;
use axum::http::Uri;
use prima_pipeline::RequestLimits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How the server is run.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Wanted as `Authorization: Bearer TOKEN` or `?token=TOKEN` by everything but the page's files
    /// and the health checks.
    pub token: Option<String>,
    /// Origins of other sites that may use the server from a browser.
    pub cors: Vec<String>,
    /// Live sessions at once.
    pub max_sessions: usize,
    /// API requests that wait or are painted at once; further ones get a 503.
    pub max_jobs: usize,
    pub limits: Limits,
    /// Files of networks that enlarge pictures, beside the one in the binary.
    pub upscalers: Vec<PathBuf>,
    /// Serve the page from this folder instead of the binary's copy.
    pub web_dir: Option<PathBuf>,
    /// Show everybody who may use the server the newest picture of any live session, at `/studio/stream`.
    pub stream: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            token: None,
            cors: Vec::new(),
            max_sessions: 64,
            max_jobs: 16,
            limits: Limits::default(),
            upscalers: Vec::new(),
            web_dir: None,
            stream: false,
        }
    }
}

/// The shortest token: 64 bits in hexadecimal digits.
const TOKEN_CHARS: usize = 16;

impl ServerOptions {
    /// Refuses what would let strangers in.
    pub fn check(&self, address: SocketAddr) -> Result<(), Error> {
        let token = self.token.as_deref().map(|token| token.chars().count());
        if let Some(chars) = token.filter(|chars| (1..TOKEN_CHARS).contains(chars)) {
            let least = TOKEN_CHARS;
            return Err(Error::TokenShort { chars, least });
        }
        if !address.ip().is_loopback() && self.token.as_deref().unwrap_or("").is_empty() {
            return Err(Error::TokenNeeded { address });
        }
        let wrong = self.cors.iter().find(|origin| !is_origin(origin));
        match wrong {
            Some(origin) => Err(Error::Origin { origin: origin.clone() }),
            None => Ok(()),
        }
    }
}

/// `http://localhost:3000`: a scheme and a host, no path.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    uri.scheme().is_some()
        && uri.authority().is_some()
        && !text.ends_with('/')
        && uri.path() == "/"
        && uri.query().is_none()
}

/// What a client may ask for. Each bounds memory or time.
#[derive(Clone, Debug)]
pub struct Limits {
    pub prompt_chars: usize,
    /// An encoded picture.
    pub image_bytes: usize,
    /// A decoded one.
    pub image_pixels: usize,
    pub max_steps: usize,
    pub max_side_px: usize,
    /// Pictures of one request.
    pub variants: usize,
    /// An HTTP body: a picture in base64 and the rest.
    pub body_bytes: usize,
    /// The header of a binary message, or a whole text message.
    pub message_bytes: usize,
    /// Live messages a second that a session may send on average, and at once.
    pub messages_per_second: f64,
    pub message_burst: f64,
    /// A client that takes no bytes for this long is cut off.
    pub stall: Duration,
    /// A body that is not there after this long is given up.
    pub body_time: Duration,
    /// So is one that brings fewer bytes than this a second, on average, after the first [`body_grace`](Self::body_grace).
    pub body_bytes_per_second: usize,
    pub body_grace: Duration,
    /// All bodies in memory at once; those of one address, half of it.
    pub bodies_bytes: usize,
    /// Memory for unpacking, resizing and packing clients' pictures, all together.
    pub pictures_bytes: usize,
    /// HTTP connections at once; beyond them, those that ask for nothing give way, and a few more are kept for health checks.
    /// Live sessions are counted apart.
    pub connections: usize,
    pub connections_per_address: usize,
    /// A new connection's first byte has to be there by then.
    pub first_byte_time: Duration,
    /// A request's whole head has to be there by then; also how long an idle connection is kept.
    pub head_time: Duration,
    /// Requests may take this long after the server was asked to stop.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            prompt_chars: 2000,
            image_bytes: 10 << 20,
            image_pixels: 16 << 20,
            max_steps: 100,
            max_side_px: 2048,
            variants: 16,
            body_bytes: 16 << 20,
            message_bytes: 64 << 10,
            messages_per_second: 60.0,
            message_burst: 240.0,
            stall: Duration::from_secs(20),
            body_time: Duration::from_secs(30),
            body_bytes_per_second: 1 << 10,
            body_grace: Duration::from_secs(5),
            bodies_bytes: 256 << 20,
            pictures_bytes: 1 << 30,
            connections: 512,
            connections_per_address: 128,
            first_byte_time: Duration::from_secs(5),
            head_time: Duration::from_secs(15),
            farewell: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Those of a request, as far as pictures go.
    pub(crate) fn of_requests(&self) -> RequestLimits {
        RequestLimits {
            prompt_chars: self.prompt_chars,
            max_steps: self.max_steps,
            max_side_px: self.max_side_px,
            max_images: self.variants,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_that_docs_serving_promises_are_the_defaults() {
        let (options, limits) = (ServerOptions::default(), Limits::default());
        let mib = |bytes: usize| bytes >> 20;
        let seconds = |time: Duration| time.as_secs();
        let promised = [
            format!("live sessions at once ({})", options.max_sessions),
            format!("API requests waiting or being painted ({})", options.max_jobs),
            format!("longest side of a picture ({})", limits.max_side_px),
            format!("it has {TOKEN_CHARS} characters or more"),
            format!(
                "Prompts of {} characters, {} steps",
                limits.prompt_chars, limits.max_steps
            ),
            format!(
                "{} HTTP connections at once, {} of one",
                limits.connections, limits.connections_per_address
            ),
            format!("A first byte within {} s", seconds(limits.first_byte_time)),
            format!("a head within {} s", seconds(limits.head_time)),
            format!(
                "Bodies of {} MB, within {} s",
                mib(limits.body_bytes),
                seconds(limits.body_time)
            ),
            format!(
                "after {} s not slower than {} KB a second",
                seconds(limits.body_grace),
                limits.body_bytes_per_second >> 10
            ),
            format!("{} MB of all clients", mib(limits.bodies_bytes)),
            format!(
                "Pictures of {} MB, {} megapixels",
                mib(limits.image_bytes),
                mib(limits.image_pixels)
            ),
            format!("takes {} GB for all clients", limits.pictures_bytes >> 30),
            format!("{} messages a second and session", limits.messages_per_second),
            format!("takes nothing for {} s", seconds(limits.stall)),
            format!("has {} s to finish", seconds(limits.farewell)),
        ];
        let doc = include_str!("../../../docs/serving.md").replace('\n', " ");
        for sentence in promised {
            assert!(doc.contains(&sentence), "docs/serving.md does not say: {sentence}");
        }
    }

    #[test]
    fn origins_have_a_scheme_and_no_path() {
        assert!(is_origin("http://localhost:3000") && is_origin("https://example.org"));
        for wrong in ["*", "localhost", "http://a/b", "http://a/", ""] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }
}
