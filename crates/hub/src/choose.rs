//! Which files of a repository are needed: of each network the weights in one storage type and one format, and what describes
//! them. What is for other programs (pickles, ONNX, Flax, the same weights once more in one file) stays where it is.

use crate::{Error, Variant, Wanted};

/// The networks of a diffusers folder.
const NETWORKS: [&str; 4] = ["unet", "vae", "text_encoder", "text_encoder_2"];
/// Their other folders, and what is read there.
const DESCRIPTIONS: [(&str, &[&str]); 3] = [
    ("tokenizer", TOKENIZER),
    ("tokenizer_2", TOKENIZER),
    ("scheduler", &["scheduler_config.json"]),
];
const TOKENIZER: &[&str] = &[
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// The names of what is needed of a repository that has these files.
pub(crate) fn needed(wanted: &Wanted, files: &[String]) -> Result<Vec<String>, Error> {
    let repository = &wanted.id.repository;
    let has = |name: &str| files.iter().any(|file| file == name);
    if let Some(file) = &wanted.id.file {
        return if has(file) {
            Ok(vec![file.clone()])
        } else {
            Err(no_file(repository, file, files))
        };
    }
    if !has("model_index.json") {
        return alone(wanted, files);
    }
    if !files.iter().any(|file| file.starts_with("unet/")) {
        let files = " (only models with a UNet are painted with)".to_owned();
        return Err(Error::NotAModel {
            repository: repository.clone(),
            files,
        });
    }
    let mut needed = vec!["model_index.json".to_owned()];
    needed.extend(has("prima.json").then(|| "prima.json".to_owned()));
    for (folder, names) in DESCRIPTIONS {
        let paths = names.iter().map(|name| format!("{folder}/{name}"));
        needed.extend(paths.filter(|path| has(path)));
    }
    for network in NETWORKS {
        let config = format!("{network}/config.json");
        if has(&config) {
            needed.push(config);
            needed.extend(weights(wanted, &format!("{network}/"), files)?);
        }
    }
    Ok(needed)
}

/// A repository of one network, or of one file.
fn alone(wanted: &Wanted, files: &[String]) -> Result<Vec<String>, Error> {
    let repository = wanted.id.repository.clone();
    let is_network = files.iter().any(|file| file == "config.json") && stem_of(files, "").is_some();
    if is_network {
        let mut needed = vec!["config.json".to_owned()];
        needed.extend(weights(wanted, "", files)?);
        return Ok(needed);
    }
    let all: Vec<&String> = files.iter().filter(|file| is_weights(file)).collect();
    match all.as_slice() {
        [only] => Ok(vec![(*only).clone()]),
        [] => Err(Error::NotAModel {
            repository,
            files: String::new(),
        }),
        [first, ..] => Err(Error::Several {
            first: format!("{repository}/{first}"),
            all: listed(&all),
            repository,
        }),
    }
}

/// How diffusers and transformers call a component's weights.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

fn stem_of(files: &[String], folder: &str) -> Option<&'static str> {
    let begins = |stem: &&str| {
        let start = format!("{folder}{stem}.");
        let ends = |file: &&String| file.ends_with(".safetensors") || file.ends_with(".json");
        let sharded = format!("{folder}{stem}-");
        let of_it = |file: &&String| file.starts_with(&start) || file.starts_with(&sharded);
        files.iter().filter(of_it).any(|file| ends(&file))
    };
    STEMS.into_iter().find(begins)
}

/// The weights of a network, whole or in shards, in the order in which `ModelSource` looks for them.
fn weights(wanted: &Wanted, folder: &str, files: &[String]) -> Result<Vec<String>, Error> {
    let has = |name: &String| files.contains(name);
    let variants = match wanted.variant {
        Variant::Whole => ["", ".fp16"],
        Variant::Fp16 => [".fp16", ""],
    };
    for variant in variants {
        for stem in STEMS {
            let whole = format!("{folder}{stem}{variant}.safetensors");
            if has(&whole) {
                return Ok(vec![whole]);
            }
            let indexes = [
                format!("{folder}{stem}{variant}.safetensors.index.json"),
                format!("{folder}{stem}.safetensors.index{variant}.json"),
            ];
            if let Some(index) = indexes.into_iter().find(has) {
                let starts = [format!("{folder}{stem}{variant}-"), format!("{folder}{stem}-")];
                let shard = |file: &&String| {
                    let named = starts.iter().any(|start| file.starts_with(start)) && file.ends_with(".safetensors");
                    // `model-00001-of-00002.fp16.safetensors` is of another variant than `model-00001-of-00002.safetensors`.
                    named && file.contains(".fp16") != variant.is_empty()
                };
                let shards = files.iter().filter(shard).cloned();
                return Ok(std::iter::once(index).chain(shards).collect());
            }
        }
    }
    let here = |file: &&String| file.strip_prefix(folder).is_some_and(|name| !name.contains('/'));
    let own: Vec<&String> = files.iter().filter(here).filter(|file| is_weights(file)).collect();
    if let [only] = own.as_slice() {
        return Ok(vec![(*only).clone()]);
    }
    let component = match folder.trim_end_matches('/') {
        "" => "the network",
        named => named,
    };
    Err(Error::OnlyPickles {
        repository: wanted.id.repository.clone(),
        component: component.to_owned(),
    })
}

fn is_weights(file: &str) -> bool {
    let ending = file.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    ["safetensors", "sft", "gguf"]
        .iter()
        .any(|known| ending.as_deref() == Some(known))
}

fn no_file(repository: &str, file: &str, files: &[String]) -> Error {
    let weights: Vec<&String> = files.iter().filter(|file| is_weights(file)).collect();
    let near = if weights.is_empty() {
        ", nor any file of weights that prima reads".to_owned()
    } else {
        format!(": there are {}", listed(&weights))
    };
    Error::NoFile {
        repository: repository.to_owned(),
        file: file.to_owned(),
        near,
    }
}

/// The first of them, and how many more there are.
fn listed(files: &[&String]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<&str> = files.iter().take(SHOWN).map(|file| file.as_str()).collect();
    match files.len().checked_sub(SHOWN + 1) {
        None => shown.join(", "),
        Some(rest) => format!("{}, and {} more", shown.join(", "), rest + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(id: &str, variant: Variant, files: &[&str]) -> Result<Vec<String>, String> {
        let wanted = Wanted {
            variant,
            ..id.parse().unwrap()
        };
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        needed(&wanted, &files).map_err(|error| error.to_string())
    }

    /// As the hub has stabilityai/sdxl-turbo, and what others leave beside it.
    const TURBO: &[&str] = &[
        ".gitattributes",
        "README.md",
        "LICENSE.md",
        "model_index.json",
        "sd_xl_turbo_1.0.safetensors",
        "sd_xl_turbo_1.0_fp16.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/model.onnx",
        "text_encoder/flax_model.msgpack",
        "text_encoder/pytorch_model.bin",
        "text_encoder_2/config.json",
        "text_encoder_2/model.fp16.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/special_tokens_map.json",
        "tokenizer_2/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "safety_checker/model.safetensors",
    ];

    #[test]
    fn a_folder_comes_without_duplicates_and_with_fp16_where_that_is_all_there_is() {
        let whole = chosen("a/b", Variant::Whole, TURBO).unwrap();
        let weights: Vec<&str> = whole
            .iter()
            .map(String::as_str)
            .filter(|f| f.ends_with("safetensors"))
            .collect();
        assert_eq!(
            weights,
            [
                "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
                "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
                "vae/diffusion_pytorch_model.safetensors",
                "text_encoder/model.safetensors",
                "text_encoder_2/model.fp16.safetensors",
            ]
        );
        for needed in [
            "model_index.json",
            "tokenizer/merges.txt",
            "unet/diffusion_pytorch_model.safetensors.index.json",
        ] {
            assert!(whole.iter().any(|file| file == needed), "{needed}");
        }
        let no = ["README", ".bin", ".onnx", "msgpack", "safety_checker", "sd_xl"];
        assert!(
            !whole.iter().any(|file| no.iter().any(|no| file.contains(no))),
            "{whole:?}"
        );
        let half = chosen("a/b", Variant::Fp16, TURBO).unwrap();
        assert!(
            half.iter()
                .filter(|f| f.ends_with("safetensors"))
                .all(|f| f.contains("fp16")),
            "{half:?}"
        );
        assert!(!half.iter().any(|file| file.contains("safetensors.index")), "{half:?}");
    }

    #[test]
    fn one_file_is_had_alone_and_several_have_to_be_named() {
        let lightning = ["README.md", "a_4step.safetensors", "a_4step_lora.safetensors"];
        let told = chosen("x/y", Variant::Whole, &lightning).unwrap_err();
        assert!(
            told.contains("x/y/a_4step.safetensors") && told.contains("a_4step_lora"),
            "{told}"
        );
        let one = chosen("x/y/a_4step.safetensors", Variant::Whole, &lightning);
        assert_eq!(one, Ok(vec!["a_4step.safetensors".to_owned()]));
        let told = chosen("x/y/a_2step.safetensors", Variant::Whole, &lightning).unwrap_err();
        assert!(
            told.contains("no a_2step.safetensors") && told.contains("a_4step.safetensors"),
            "{told}"
        );
        let lora = ["pytorch_lora_weights.safetensors", "README.md"];
        assert_eq!(chosen("x/y", Variant::Whole, &lora), Ok(vec![lora[0].to_owned()]));
        let network = [
            "config.json",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.fp16.safetensors",
        ];
        assert_eq!(
            chosen("x/y", Variant::Whole, &network),
            Ok(vec![
                "config.json".to_owned(),
                "diffusion_pytorch_model.safetensors".to_owned()
            ])
        );
    }

    #[test]
    fn what_prima_cannot_paint_with_is_said_before_anything_comes() {
        let pickles = [
            "model_index.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.bin",
        ];
        let told = chosen("x/y", Variant::Whole, &pickles).unwrap_err();
        assert!(told.contains("no safetensors of unet"), "{told}");
        let flux = [
            "model_index.json",
            "transformer/config.json",
            "transformer/a.safetensors",
        ];
        assert!(
            chosen("x/y", Variant::Whole, &flux)
                .unwrap_err()
                .contains("no model that prima knows")
        );
        assert!(chosen("x/y", Variant::Whole, &["README.md"]).is_err());
    }
}
