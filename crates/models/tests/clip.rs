//! CLIP's shared space against transformers, with tiny random weights (`scripts/goldens/clip.py`).

mod common;

use common::{assert_close, goldens};
use prima_checkpoint::TensorFile;
use prima_models::Clip;
use prima_tensor::{nchw_to_nhwc, no_grad};

#[test]
fn pictures_and_words_lie_where_transformers_puts_them() {
    let folder = goldens().join("clip");
    let clip = Clip::open(&folder).unwrap();
    let golden = TensorFile::open(&folder.join("outputs.safetensors")).unwrap();
    let pictures = nchw_to_nhwc(&golden.read("pixel_values").unwrap());
    let embeds = no_grad(|| clip.image_embeds(&pictures));
    assert_close("image_embeds", &embeds, &golden.read("image_embeds").unwrap());
    let ids = golden.read("input_ids").unwrap();
    let rows: Vec<u32> = ids.data().iter().map(|id| *id as u32).collect();
    let embeds = no_grad(|| clip.text_embeds(&rows, ids.dim(0))).unwrap();
    assert_close("text_embeds", &embeds, &golden.read("text_embeds").unwrap());
}
