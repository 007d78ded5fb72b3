//! A network that says what a picture shows: trained on the scene generator's renders, on the frozen maps of
//! EfficientNet-lite0. What it gets right on renders that it did not learn from is the most that a model can be given credit
//! for, and is kept in its file.

mod colour;
mod exam;
mod head;
pub(crate) mod labels;
mod readers;
mod relation;
mod renders;
mod seen;
#[cfg(test)]
pub(crate) mod tests;
mod training;

pub use exam::{Asked, Ceiling, Score};
pub use labels::Answers;
pub use renders::{held_out, picture_of};
pub use seen::Seen;
pub(crate) use training::CENTRE;
pub use training::Lessons;

use crate::features::Maps;
use crate::{Error, FeatureNet};
use head::{CELLS, Head, Layout, WIDTH};
use prima_checkpoint::{Reader, TensorFile};
use prima_picture::Picture;
use prima_tensor::{DType, Tensor, no_grad};
use readers::{Readers, counted};
use seen::softmax;
use serde_json::json;
use std::path::Path;

/// What a judge's file says it is.
const FORMAT: &str = "prima-judge-2";

/// The trained head, and the answers that it knows.
pub struct Judge {
    answers: Answers,
    layout: Layout,
    head: Head,
    readers: Readers,
    params: Vec<(String, prima_tensor::Param)>,
    /// Its own accuracy on held-out renders.
    pub ceilings: Vec<Ceiling>,
}

impl Judge {
    /// Reads what [`save`](Self::save) wrote.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = TensorFile::open(path)?;
        let said = |key: &str| -> Result<serde_json::Value, Error> {
            let text = file
                .metadata()
                .get(key)
                .ok_or_else(|| Error::NoJudge(path.to_owned()))?;
            serde_json::from_str(text).map_err(Error::file(path))
        };
        if said("judge")? != FORMAT {
            return Err(Error::NoJudge(path.to_owned()));
        }
        let answers = Answers {
            nouns: serde_json::from_value(said("nouns")?).map_err(Error::file(path))?,
            places: serde_json::from_value(said("places")?).map_err(Error::file(path))?,
            kinds: serde_json::from_value(said("kinds")?).map_err(Error::file(path))?,
        };
        let ceilings = serde_json::from_value(said("ceilings")?).map_err(Error::file(path))?;
        let layout = Layout::of(&answers);
        let mut reader = Reader::open(path)?;
        let head = Head::new(&mut reader, &layout)?;
        let readers = Readers::new(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            answers,
            layout,
            head,
            readers,
            params: reader.into_params(),
            ceilings,
        })
    }

    /// One file with all that a judge knows, but for the feature network.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let said = [
            ("judge", json!(FORMAT)),
            ("nouns", json!(self.answers.nouns)),
            ("places", json!(self.answers.places)),
            ("kinds", json!(self.answers.kinds)),
            ("ceilings", json!(self.ceilings)),
        ];
        let metadata = said.map(|(key, value)| (key, value.to_string()));
        Ok(prima_checkpoint::write_safetensors_with(
            path,
            &self.params,
            DType::F32,
            &metadata,
        )?)
    }

    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// What is seen in a picture, which is looked at in 256 x 256 pixels.
    pub fn look(&self, net: &FeatureNet, picture: &Picture) -> Seen {
        self.see(&net.maps(picture))
    }

    fn see(&self, maps: &Maps) -> Seen {
        no_grad(|| {
            let (tokens, cells) = self.head.cells((0..CELLS).map(|cell| (maps, cell)));
            let whole = self.head.whole(&[maps], None);
            let mut seen = Seen::of(cells.data(), whole.data(), maps.mosaic.clone(), &self.layout);
            seen.tokens = tokens.into_vec();
            seen.counts = self.counts(&seen);
            seen
        })
    }

    /// Probabilities of one, two, three and four things.
    fn counts(&self, seen: &Seen) -> Vec<f32> {
        let cells = counted(&seen.things(), &seen.tokens, false);
        let scores = self.readers.counts(&Tensor::from_vec(cells, &[1, CELLS, 1 + WIDTH]));
        softmax(scores.data())
    }
}
