/// One sentence each: the thing, and the fix.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Checkpoint(#[from] prima_checkpoint::Error),
    #[error(transparent)]
    Device(#[from] prima_tensor::DeviceError),
    /// A file that is no network of the kind that was asked for.
    #[error("{file} is not {expected}: {found}")]
    Kind {
        file: String,
        expected: &'static str,
        found: String,
    },
    /// Reading it could run whatever code somebody put into it.
    #[error(
        "{file} is a pickle, which is a program: convert it with `python -c \"import sys, torch; from safetensors.torch import save_file; d = torch.load(sys.argv[1], weights_only=True); d = d.get('params_ema', d.get('params', d)); save_file({{k: v.contiguous() for k, v in d.items()}}, sys.argv[2])\" {file} NAME.safetensors`"
    )]
    Pickle { file: String },
    #[error("a picture of {width}x{height} px is not possible here: {fix}")]
    Size { width: usize, height: usize, fix: String },
    #[error("nothing was found there: point at something else")]
    NothingFound,
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whether what was asked for is at fault, rather than a file or the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Size { .. } | Self::NothingFound)
    }
}

impl From<prima_models::Cancelled> for Error {
    fn from(_: prima_models::Cancelled) -> Self {
        Self::Cancelled
    }
}
