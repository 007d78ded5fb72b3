//! A tiny random Segment Anything model end to end (`scripts/goldens/sam.py`): files, questions, what comes back.

use prima_finish::{Error, Pointed, Segmenter, soft_edges};
use prima_picture::Picture;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens").join(name)
}

fn picture() -> Picture {
    let name = golden("upscalers/picture.png");
    Picture::decode(&std::fs::read(name).unwrap(), "picture").unwrap()
}

fn pointed(x: f32, y: f32) -> Pointed {
    Pointed {
        inside: vec![[x, y]],
        ..Pointed::default()
    }
}

#[test]
fn one_look_answers_many_questions_at_the_pictures_size() {
    let segmenter = Segmenter::open(&golden("sam/model.safetensors")).unwrap();
    assert_eq!(segmenter.name(), "model");
    let picture = picture();
    let seen = segmenter.look(&picture, &mut || true).unwrap();
    let mask = seen.mask(&pointed(40.0, 30.0)).unwrap();
    assert_eq!((mask.width, mask.height, mask.values.len()), (80, 64, 80 * 64));
    assert!(
        mask.values.contains(&0) && mask.values.contains(&255),
        "a random network's mask is part of it"
    );
    assert_eq!(seen.mask(&pointed(40.0, 30.0)).unwrap(), mask);
    let bounds = Pointed {
        bounds: Some([4.0, 4.0, 60.0, 40.0]),
        ..Pointed::default()
    };
    assert_ne!(seen.mask(&bounds).unwrap().values, mask.values);
    assert_eq!(soft_edges(&picture, &mask, 3).len(), 80 * 64);
}

#[test]
fn looking_around_can_be_ended_and_other_files_are_refused() {
    let segmenter = Segmenter::open(&golden("sam/model.safetensors")).unwrap();
    let picture = picture();
    assert!(matches!(segmenter.look(&picture, &mut || false), Err(Error::Cancelled)));
    let seen = segmenter.look(&picture, &mut || true).unwrap();
    assert!(matches!(seen.all(4, &mut || false), Err(Error::Cancelled)));
    let sure = seen.all(2, &mut || true).unwrap();
    assert!(sure.windows(2).all(|pair| pair[0].score >= pair[1].score));
    let error = Segmenter::open(&golden("upscalers/compact.safetensors"))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("Segment Anything"), "{error}");
}

#[test]
fn the_authors_keys_make_the_same_network() {
    let file = prima_checkpoint::TensorFile::open(&golden("sam/model.safetensors")).unwrap();
    let theirs = |key: &str| {
        let pairs = [
            (
                "vision_encoder.patch_embed.projection",
                "image_encoder.patch_embed.proj",
            ),
            ("vision_encoder.layers", "image_encoder.blocks"),
            ("vision_encoder.neck.conv1", "image_encoder.neck.0"),
            ("vision_encoder.neck.layer_norm1", "image_encoder.neck.1"),
            ("vision_encoder.neck.conv2", "image_encoder.neck.2"),
            ("vision_encoder.neck.layer_norm2", "image_encoder.neck.3"),
            ("vision_encoder.pos_embed", "image_encoder.pos_embed"),
            (
                "shared_embedding.positional_embedding",
                "pe_layer.positional_encoding_gaussian_matrix",
            ),
            (".point_embed.", ".point_embeddings."),
            ("mask_embed.conv1", "mask_downscaling.0"),
            ("mask_embed.layer_norm1", "mask_downscaling.1"),
            ("mask_embed.conv2", "mask_downscaling.3"),
            ("mask_embed.layer_norm2", "mask_downscaling.4"),
            ("mask_embed.conv3", "mask_downscaling.6"),
            ("upscale_conv1", "output_upscaling.0"),
            ("upscale_layer_norm", "output_upscaling.1"),
            ("upscale_conv2", "output_upscaling.3"),
            ("layer_norm_final_attn", "norm_final_attn"),
            ("layer_norm", "norm"),
        ];
        let mut name = key.to_owned();
        if key.contains("mlps.") || key.contains("iou_prediction_head.") {
            for (ours, theirs) in [
                ("layers.0", "layers.1"),
                ("proj_in", "layers.0"),
                ("proj_out", "layers.2"),
            ] {
                if name == key {
                    name = name.replace(ours, theirs);
                }
            }
            return name;
        }
        for (ours, theirs) in pairs {
            name = name.replace(ours, theirs);
        }
        name
    };
    let params: Vec<(String, prima_tensor::Param)> = file
        .tensors()
        .keys()
        .map(|key| (theirs(key), prima_tensor::Param::new(file.read(key).unwrap())))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sam_vit_b.safetensors");
    prima_checkpoint::write_safetensors(&path, &params, prima_tensor::DType::F32).unwrap();
    let picture = picture();
    let mask = |path: &Path| {
        let segmenter = Segmenter::open(path).unwrap();
        segmenter
            .look(&picture, &mut || true)
            .unwrap()
            .mask(&pointed(20.0, 20.0))
            .unwrap()
    };
    assert_eq!(mask(&path), mask(&golden("sam/model.safetensors")));
}
