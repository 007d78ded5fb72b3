//! Learnt words against diffusers (goldens/embeddings, scripts/goldens/embeddings.py).

mod common;

use common::{check_picture, goldens, paint, written};
use prima_pipeline::{EmbeddingOptions, LoadOptions, ModelSource, Pipeline, Request, ScheduleOptions};
use std::path::PathBuf;

fn open(embeddings: EmbeddingOptions) -> Result<Pipeline, prima_pipeline::Error> {
    let options = LoadOptions {
        embeddings,
        ..LoadOptions::default()
    };
    Pipeline::load(&ModelSource::open(goldens().join("tiny-sdxl")).unwrap(), &options)
}

fn file(path: impl Into<PathBuf>, word: Option<&str>) -> EmbeddingOptions {
    EmbeddingOptions {
        folder: None,
        files: vec![(path.into(), word.map(str::to_owned))],
    }
}

#[test]
fn learnt_words_of_two_text_encoders_are_those_of_diffusers() {
    for case in common::cases("embeddings") {
        let pipeline = open(file(goldens().join("embeddings/moodxl.safetensors"), None)).unwrap();
        check_picture(&pipeline, &case, "embeddings");
    }
}

fn request(prompt: &str) -> Request {
    Request {
        prompt: prompt.to_owned(),
        width: Some(64),
        height: Some(64),
        schedule: ScheduleOptions::steps(1),
        ..Request::default()
    }
}

#[test]
fn a_word_is_read_whole_whatever_its_case_and_under_the_name_that_it_is_given() {
    let pipeline = open(file(goldens().join("embeddings/moodxl.safetensors"), Some("my-Mood"))).unwrap();
    let of = |prompt: &str| paint(&pipeline, &request(prompt)).0.pictures;
    assert_eq!(of("a cat, my-mood"), of("a cat, MY-MOOD"));
    assert_ne!(of("a cat, my-mood"), of("a cat, my-moody"));
    let encoder = &pipeline.parts().text_encoders.encoders()[0].tokenizer;
    let plain = encoder.tokens("a cat, x!").unwrap().len();
    let with = encoder.tokens("a cat, my-mood!").unwrap();
    assert_eq!(with.len(), plain - encoder.tokens("x").unwrap().len() + 2);
    assert_eq!(with.iter().filter(|token| token.start == 7).count(), 2, "{with:?}");
    assert_eq!(pipeline.embeddings()[0].vectors, 2);
}

#[test]
fn embeddings_for_other_models_are_refused_by_name_and_passed_over_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let one = written(folder.path(), "sd1.safetensors", &[("emb_params", &[3, 768])]);
    let said = open(file(one, None)).map(|_| ()).unwrap_err().to_string();
    assert!(
        said.contains("sd1.safetensors") && said.contains("[768] channels"),
        "{said}"
    );
    let strange = written(folder.path(), "strange.safetensors", &[("a", &[1, 4]), ("b", &[1, 4])]);
    let said = open(file(strange, None)).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("it is no embedding"), "{said}");
    let said = open(file(folder.path().join("old.pt"), None))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(said.contains("pickled") && said.contains("safetensors"), "{said}");
    std::fs::copy(
        goldens().join("embeddings/moodxl.safetensors"),
        folder.path().join("mood.safetensors"),
    )
    .unwrap();
    let whole = EmbeddingOptions {
        folder: Some(folder.path().to_path_buf()),
        files: Vec::new(),
    };
    let pipeline = open(whole).unwrap();
    let names: Vec<&str> = pipeline.embeddings().iter().map(|word| word.name.as_str()).collect();
    assert_eq!((names, pipeline.skipped_embeddings().len()), (vec!["mood"], 2));
}
