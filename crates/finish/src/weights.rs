//! A network's file under the keys that its network asks for.

use crate::Error;
use prima_checkpoint::{Error as FileError, Init, ParamSource, Reader};
use prima_tensor::{DType, Keep, Param};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// A reader whose keys have other names.
pub(crate) struct Weights {
    reader: Reader,
    /// The stored key of each key.
    stored: BTreeMap<String, String>,
}

/// First bytes of what `torch.save` writes: a zip archive, or the bare pickle of older versions.
fn is_pickle(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"\x80\x02")
}

/// Refuses what only Python reads, and says how it becomes a file that prima reads.
pub(crate) fn check_no_pickle(path: &Path) -> Result<(), Error> {
    let mut head = [0; 4];
    // Whatever cannot be opened is told by the reader that comes next; a FIFO would be waited for.
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    if is_file && File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && is_pickle(&head) {
        return Err(Error::Pickle {
            file: path.display().to_string(),
        });
    }
    Ok(())
}

impl Weights {
    /// `rename` gives the key that the network asks for of each stored one.
    pub fn new(reader: Reader, rename: impl Fn(&str) -> String) -> Self {
        let stored = reader.keys().map(|key| (rename(key), key.to_owned())).collect();
        Self { reader, stored }
    }

    pub fn shape(&self, key: &str) -> Option<Vec<usize>> {
        self.reader.shape(self.stored.get(key)?)
    }

    pub fn name(&self) -> &str {
        self.reader.name()
    }

    /// A few of the keys, for errors.
    pub fn some_keys(&self) -> String {
        let keys: Vec<&str> = self.stored.keys().take(3).map(String::as_str).collect();
        format!("it has tensors such as {}", keys.join(", "))
    }

    /// The network that `build` makes, with its matrices and convolutions kept in `dtype`; a file with more in it is refused.
    pub fn load<N>(
        mut self,
        dtype: DType,
        build: impl FnOnce(&mut dyn ParamSource) -> Result<N, FileError>,
    ) -> Result<N, Error> {
        self.reader.defer();
        let network = build(&mut self)?;
        let keep = |_: &str, shape: &[usize]| {
            if shape.len() > 1 {
                Keep::Packed(dtype)
            } else {
                Keep::Stored(DType::F32)
            }
        };
        self.reader.fill(keep, &|_| ())?;
        self.reader.finish()?;
        Ok(network)
    }

    /// The same in f32, with every value there when its parameter is given: for networks that look at values.
    pub fn load_at_once<N>(
        mut self,
        build: impl FnOnce(&mut dyn ParamSource) -> Result<N, FileError>,
    ) -> Result<N, Error> {
        let network = build(&mut self)?;
        self.reader.finish()?;
        Ok(network)
    }
}

impl ParamSource for Weights {
    fn param(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Param, FileError> {
        let stored = self.stored.get(key).map_or(key, String::as_str);
        self.reader.param(stored, shape, init)
    }
}

/// Two files of one network, of which every value is mixed.
pub(crate) struct Mixed {
    pub first: Weights,
    pub second: Weights,
    /// Of the first.
    pub share: f32,
}

impl Mixed {
    pub fn load<N>(mut self, build: impl FnOnce(&mut dyn ParamSource) -> Result<N, FileError>) -> Result<N, Error> {
        let network = build(&mut self)?;
        self.first.reader.finish()?;
        self.second.reader.finish()?;
        Ok(network)
    }
}

impl ParamSource for Mixed {
    fn param(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Param, FileError> {
        let [first, second] = [
            self.first.param(key, shape, init)?.tensor(),
            self.second.param(key, shape, init)?.tensor(),
        ];
        let (a, b) = (f64::from(self.share), f64::from(1.0 - self.share));
        Ok(Param::new(prima_tensor::weighted_sum(&[(a, &first), (b, &second)])))
    }
}
