//! What enlarges pictures here: interpolation, and the networks that the server was started with, by name.

use crate::refusal::{Refusal, short};
use prima_finish::upscale::EMBEDDED_NAME;
use prima_picture::{Gray, Layer, Picture, resize_bytes};
use prima_tensor::DType;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// What the web UI calls the files of Real-ESRGAN.
const A1111_NAMES: [(&str, &str); 6] = [
    ("R-ESRGAN AnimeVideo", EMBEDDED_NAME),
    ("R-ESRGAN General 4xV3", "realesr-general-x4v3"),
    ("R-ESRGAN General WDN 4xV3", "realesr-general-wdn-x4v3"),
    ("R-ESRGAN 4x+", "RealESRGAN_x4plus"),
    ("R-ESRGAN 4x+ Anime6B", "RealESRGAN_x4plus_anime_6B"),
    ("R-ESRGAN 2x+", "RealESRGAN_x2plus"),
];

/// How a picture is made larger.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Upscaler {
    Lanczos,
    Nearest,
    /// The web UI's default of the hires fix; enlarged as a picture all the same.
    Latent,
    /// A network, by its name here.
    Network(String),
}

/// The networks, each read when it is first asked for.
pub(crate) struct Upscalers {
    files: Vec<PathBuf>,
    read: Mutex<HashMap<String, Arc<prima_finish::Upscaler>>>,
}

fn name_of(file: &std::path::Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

impl Upscalers {
    pub fn new(files: &[PathBuf]) -> Self {
        Self {
            files: files.to_vec(),
            read: Mutex::default(),
        }
    }

    /// The names of the networks; that in the binary first.
    pub fn networks(&self) -> Vec<String> {
        let files = self.files.iter().map(|file| name_of(file));
        std::iter::once(EMBEDDED_NAME.to_owned()).chain(files).collect()
    }

    /// All names; `None` is the web UI's word for interpolation.
    pub fn listed(&self) -> Vec<String> {
        let plain = ["None", "Lanczos", "Nearest"].map(str::to_owned);
        plain.into_iter().chain(self.networks()).collect()
    }

    pub fn named(&self, field: &'static str, name: &str) -> Result<Upscaler, Refusal> {
        match name {
            "None" | "Lanczos" => return Ok(Upscaler::Lanczos),
            "Nearest" => return Ok(Upscaler::Nearest),
            name if name.starts_with("Latent") => return Ok(Upscaler::Latent),
            _ => {}
        }
        let of_a1111 = A1111_NAMES.iter().find(|(called, _)| *called == name);
        let wanted = of_a1111.map_or(name, |(_, file)| file);
        if let Some(network) = self.networks().into_iter().find(|network| network == wanted) {
            return Ok(Upscaler::Network(network));
        }
        let (name, listed) = (short(name, 60), self.listed().join(", "));
        let message = format!("there is no upscaler {name:?} here: use one of {listed}");
        Err(Refusal::field(field, message))
    }

    /// The network of a name of [`networks`](Self::networks).
    fn network(&self, name: &str) -> Result<Arc<prima_finish::Upscaler>, Refusal> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = read.get(name) {
            return Ok(network.clone());
        }
        let file = self.files.iter().find(|file| name_of(file) == name);
        let network = match file {
            Some(file) => prima_finish::Upscaler::open(file, DType::F32),
            None => prima_finish::Upscaler::embedded(DType::F32),
        };
        let network = Arc::new(network.map_err(failed)?);
        read.insert(name.to_owned(), network.clone());
        Ok(network)
    }

    /// The picture at another size; needs [`bytes`](Upscaler::bytes) of memory.
    pub fn enlarged(&self, layer: &Layer, (width, height): (usize, usize), by: &Upscaler) -> Result<Layer, Refusal> {
        let every = |picture: fn(&Picture, usize, usize) -> Picture| {
            let alpha = layer.alpha.as_ref();
            Layer {
                picture: picture(&layer.picture, width, height),
                alpha: alpha.map(|alpha| Gray::of(&picture(&alpha.to_picture(), width, height))),
            }
        };
        match by {
            Upscaler::Nearest => Ok(every(nearest_at)),
            Upscaler::Lanczos | Upscaler::Latent => Ok(every(Picture::resized)),
            Upscaler::Network(name) => {
                let network = self.network(name)?;
                let made = network.enlarge(layer, width, height, &mut |_| ControlFlow::Continue(()));
                made.map_err(failed)
            }
        }
    }

    /// How many times larger a network makes a picture.
    pub fn scale(&self, name: &str) -> Result<usize, Refusal> {
        Ok(self.network(name)?.scale())
    }
}

impl Upscaler {
    pub fn name(&self) -> &str {
        match self {
            Self::Nearest => "Nearest",
            Self::Lanczos | Self::Latent => "Lanczos",
            Self::Network(name) => name,
        }
    }

    /// What is not as its name says.
    pub fn said(&self) -> Option<String> {
        let text = "latents are not enlarged here: the picture was, by Lanczos";
        (*self == Self::Latent).then(|| text.to_owned())
    }

    /// Memory that it takes, the pictures themselves not counted.
    pub fn bytes(&self, from: (usize, usize), to: (usize, usize)) -> usize {
        match self {
            Self::Network(_) => prima_finish::Upscaler::bytes(from, to),
            _ => resize_bytes(from, to),
        }
    }
}

/// The picture with pixels repeated or left out.
pub(crate) fn nearest_at(picture: &Picture, width: usize, height: usize) -> Picture {
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let from = 3 * (y * picture.height / height * picture.width + x * picture.width / width);
            rgb.extend_from_slice(&picture.rgb[from..from + 3]);
        }
    }
    Picture { width, height, rgb }
}

fn failed(error: prima_finish::Error) -> Refusal {
    if error.is_usage() {
        return Refusal::bad(error.to_string());
    }
    // Where a file lies is not for clients.
    tracing::error!("{error}");
    Refusal::unavailable("the upscaler cannot be used; the log says why")
}
