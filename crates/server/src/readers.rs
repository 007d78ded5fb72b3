//! For `fuzz/`: the readers of what clients send, without sockets and without painting.

use crate::app::App;
use crate::options::ServerOptions;
use crate::{Error, a1111, comfy, live, openai, predictions};
use axum::body::{Body, Bytes};
use axum::extract::Request as HttpRequest;
use axum::http::header;
use prima_engine::{Engine, Readiness, Session};
use prima_pipeline::{LoadOptions, ModelSource};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::runtime::Runtime;

/// A server's state. What it is given is read as far as the request to the engine, which paints nothing.
#[doc(hidden)]
pub struct Readers {
    app: App,
    session: Session,
    runtime: Runtime,
}

/// The boundary between the parts of forms that [`Readers::openai_edit`] is given.
pub const BOUNDARY: &str = "fuzz";

impl Readers {
    /// With this model, by which sizes and steps are judged.
    pub fn new(model: ModelSource) -> Result<Self, Error> {
        let mut options = ServerOptions::default();
        // Larger ones take as long as they may, which would be taken for a finding.
        options.limits.image_pixels = 1 << 20;
        let engine = Engine::start(model, LoadOptions::default(), options.max_jobs);
        while !matches!(engine.readiness(), Readiness::Ready | Readiness::Failed(_)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // The model stays; what is submitted from now on is dropped.
        engine.stop();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Threads)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Self {
            session: engine.session(),
            app: App::new(engine, options, address)?,
            runtime,
        })
    }

    /// A message of the live protocol; whether it was understood and possible.
    pub fn live(&self, message: &[u8], binary: bool) -> bool {
        let message = Bytes::copy_from_slice(message);
        self.runtime
            .block_on(live::asked(&self.app, &self.session, &message, binary))
            .is_ok()
    }

    /// The body of `/v1/images/generations`.
    pub fn openai(&self, body: &[u8]) -> bool {
        openai::asked(&self.app, body).is_ok()
    }

    /// The body of `/v1/images/edits`, its parts divided by [`BOUNDARY`].
    pub fn openai_edit(&self, body: &[u8]) -> bool {
        let body = Body::from(Bytes::copy_from_slice(body));
        let request = HttpRequest::builder()
            .header(
                header::CONTENT_TYPE,
                format!("multipart/form-data; boundary={BOUNDARY}"),
            )
            .body(body);
        let Ok(request) = request else { return false };
        self.runtime.block_on(openai::asked_edit(&self.app, request)).is_ok()
    }

    /// The body of `/sdapi/v1/txt2img` or `img2img`.
    pub fn a1111(&self, body: &[u8], from_image: bool) -> bool {
        self.runtime
            .block_on(a1111::images::asked(&self.app, body, from_image))
            .is_ok()
    }

    /// The body of `/sdapi/v1/png-info`.
    pub fn png_info(&self, body: &[u8]) -> bool {
        a1111::info::png_of(body).is_ok_and(|file| prima_picture::read_parameters(&file).is_ok())
    }

    /// The body of `/prompt`.
    pub fn comfy(&self, body: &[u8]) -> bool {
        comfy::asked(&self.app, body).is_ok()
    }

    /// The body of `/predictions`.
    pub fn prediction(&self, body: &[u8]) -> bool {
        self.runtime.block_on(predictions::asked(&self.app, body)).is_ok()
    }
}
