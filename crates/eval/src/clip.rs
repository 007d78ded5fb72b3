//! CLIP as a measure: its embeddings of pictures for CMMD, and how well a picture fits words.

use crate::features::normalised;
use crate::{Error, Features, Resize};
use prima_models::{Clip, Tokenizer, TokenizerFiles};
use prima_picture::Picture;
use prima_tensor::{Tensor, no_grad};
use serde::Deserialize;
use std::path::Path;

/// Of a score of pictures that fit their words wholly, as torchmetrics scales it.
const SCALE: f64 = 100.0;

/// What pictures are made of before CLIP sees them: `preprocessor_config.json`, of which only the colours' mean and deviation count.
#[derive(Deserialize)]
#[serde(default)]
struct Preprocessor {
    image_mean: [f32; 3],
    image_std: [f32; 3],
}

impl Default for Preprocessor {
    fn default() -> Self {
        Self {
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

/// A CLIP folder of transformers: networks, tokenizer and preprocessor.
pub struct ClipNet {
    network: Clip,
    tokenizer: Tokenizer,
    preprocessor: Preprocessor,
    name: String,
}

impl ClipNet {
    /// A folder with `config.json`, `model.safetensors` and a tokenizer, such as that of openai/clip-vit-large-patch14-336, which CMMD
    /// is defined with.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let network = Clip::open(folder)?;
        let read = |name: &str| std::fs::read(folder.join(name)).ok();
        let files = TokenizerFiles {
            tokenizer_json: read("tokenizer.json"),
            vocab_json: read("vocab.json"),
            merges_txt: read("merges.txt"),
            special_tokens_map_json: read("special_tokens_map.json"),
            tokenizer_config_json: read("tokenizer_config.json"),
        };
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tokenizer = Tokenizer::new(&folder.display().to_string(), &files, network.max_tokens())?;
        let path = folder.join("preprocessor_config.json");
        let preprocessor = match read("preprocessor_config.json") {
            Some(json) => serde_json::from_slice(&json).map_err(Error::file(&path))?,
            None => Preprocessor::default(),
        };
        Ok(Self {
            network,
            tokenizer,
            preprocessor,
            name,
        })
    }

    /// Words as a point of unit length; what is behind the last token that fits is not read.
    pub fn words(&self, text: &str) -> Result<Vec<f32>, Error> {
        let ids = self.tokenizer.encode(text)?.ids;
        let embeds = no_grad(|| self.network.text_embeds(&ids, 1));
        Ok(normalised(embeds.map(Tensor::into_vec).unwrap_or_default()))
    }

    /// The CLIP score (Hessel et al. 2021) of a picture and of [`words`](Self::words): 100 times their cosine, or 0 where that is less.
    /// The picture's shorter side becomes as long as the network wants it, and the middle is seen.
    pub fn score(&self, picture: &Picture, words: &[f32]) -> f64 {
        let seen = self.embedding(&self.middle(picture));
        let cosine: f64 = seen.iter().zip(words).map(|(a, b)| f64::from(a * b)).sum();
        SCALE * cosine.max(0.0)
    }

    fn side(&self) -> usize {
        self.network.config().image_size
    }

    /// From 0 to 255, as transformers' image processor cuts it.
    fn middle(&self, picture: &Picture) -> Vec<f32> {
        let side = self.side();
        let long = |own: usize, other: usize| if own <= other { side } else { side * own / other };
        let (height, width) = (long(picture.height, picture.width), long(picture.width, picture.height));
        let (top, left) = ((height - side) / 2, (width - side) / 2);
        let resized = Resize::Clean.apply_to(picture, [height, width]);
        let row = |y: usize| &resized[3 * ((top + y) * width + left)..][..3 * side];
        (0..side).flat_map(row).copied().collect()
    }

    /// Of pixels from 0 to 255.
    fn embedding(&self, pixels: &[f32]) -> Vec<f32> {
        let side = self.side();
        let image = self.prepared(pixels).reshape(&[1, side, side, 3]);
        normalised(no_grad(|| self.network.image_embeds(&image)).into_vec())
    }

    fn prepared(&self, pixels: &[f32]) -> Tensor {
        let Preprocessor { image_mean, image_std } = &self.preprocessor;
        let value = |(i, v): (usize, &f32)| (v / 255.0 - image_mean[i % 3]) / image_std[i % 3];
        Tensor::from_vec(pixels.iter().enumerate().map(value).collect(), &[pixels.len()])
    }
}

impl Features for ClipNet {
    fn name(&self) -> String {
        format!("{}, unit length, clean resizing", self.name)
    }

    /// Of the whole picture, whatever its shape, as CMMD's authors do it.
    fn of(&self, picture: &Picture) -> Vec<f32> {
        self.embedding(&Resize::Clean.apply(picture, self.side()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distances::cmmd;
    use prima_checkpoint::TensorFile;
    use prima_tensor::nhwc_to_nchw;
    use std::path::PathBuf;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/clip")
    }

    #[test]
    fn pictures_are_prepared_and_scored_as_transformers_does_it() {
        let clip = ClipNet::open(&folder()).unwrap();
        let golden = TensorFile::open(&folder().join("outputs.safetensors")).unwrap();
        let (pictures, pixels) = (golden.read("pictures").unwrap(), golden.read("pixel_values").unwrap());
        let scores = golden.read("scores").unwrap();
        let (height, width, side) = (pictures.dim(1), pictures.dim(2), clip.side());
        for (i, words) in ["a red apple", "two dogs on the grass"].into_iter().enumerate() {
            let rgb = &pictures.data()[i * height * width * 3..][..height * width * 3];
            let picture = Picture {
                width,
                height,
                rgb: rgb.iter().map(|v| *v as u8).collect(),
            };
            let prepared = clip.prepared(&clip.middle(&picture)).reshape(&[1, side, side, 3]);
            let prepared = nhwc_to_nchw(&prepared);
            let want = &pixels.data()[i * side * side * 3..][..side * side * 3];
            let apart = prepared.data().iter().zip(want).map(|(a, b)| (a - b).abs());
            let farthest = apart.fold(0.0, f32::max);
            // Theirs are rounded to bytes before.
            assert!(farthest < 0.02, "{farthest}");
            let score = clip.score(&picture, &clip.words(words).unwrap());
            let want = f64::from(scores.data()[i]);
            assert!((score - want).abs() < 0.1, "{words}: {score}, {want}");
        }
    }

    #[test]
    fn cmmd_is_that_of_its_formula() {
        let golden = TensorFile::open(&folder().join("outputs.safetensors")).unwrap();
        let rows = |name: &str| -> Vec<Vec<f32>> {
            let set = golden.read(name).unwrap();
            set.data().chunks(set.dim(1)).map(<[f32]>::to_vec).collect()
        };
        let (a, b) = (rows("cmmd.a"), rows("cmmd.b"));
        let want = f64::from(golden.read("cmmd").unwrap().item());
        assert!((cmmd(&a, &b) - want).abs() < 1e-3, "{} {want}", cmmd(&a, &b));
        assert!(cmmd(&a, &a).abs() < 1e-9);
    }
}
