//! Ten steps of every objective as PyTorch takes them: goldens/training, by scripts/goldens/training.py.

use super::common::newest;
use super::{Scratch, noising, tiny_features, trainee};
use crate::captions::Tokens;
use crate::config::TrainConfig;
use crate::latent_cache::{EncodedPicture, LatentCache};
use crate::networks;
use crate::noising::default_scheduler;
use crate::objective::{Batch, Objective};
use crate::objectives::{
    Add, Dmd2, Ect, Gan, Ladd, Lcm, LcmConfig, LcmLoraConfig, Learns, Lightning, Lora, MeanFlow, Progressive, Rdm,
    StageConfig, Teacher, TextLatents, Trainee, learns_a_lora,
};
use crate::params::Component;
use crate::trained::Painter;
use crate::trainer::{Budget, LoopConfig, RunOptions, run};
use prima_checkpoint::{Init, ParamSource, RandomInit, TensorFile};
use prima_models::Unet2dCondition;
use prima_tensor::{Param, Philox};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const CAPTIONS: [&str; 8] = [
    "a red apple",
    "a cat",
    "two dogs on the grass",
    "the sea at night",
    "a blue car",
    "an old house",
    "rain",
    "a cake",
];
/// Height and width of the latents, and their channels.
const SIDE: usize = 8;
const CHANNELS: usize = 4;
/// Of losses, and of the first gradients.
const TOLERANCE: f32 = 1e-3;

fn goldens() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens"))
}

/// What an objective of a fixture is made of.
struct Parts {
    config: TrainConfig,
    section: Value,
    seed: u64,
}

impl Parts {
    fn stage<C: StageConfig>(&self) -> C {
        serde_json::from_value(self.section.clone()).unwrap()
    }

    /// The text encoders' reading of the captions, each with latents of its own.
    fn data(&self, painter: &Painter) -> TextLatents {
        let each = SIDE * SIDE * CHANNELS;
        let raw = Philox {
            seed: 5,
            image: 0,
            purpose: 99,
            step: 0,
        }
        .normal(CAPTIONS.len() * each);
        let picture = |(latents, caption): (&[f32], &str)| EncodedPicture {
            size: [SIDE; 2],
            latents: latents.to_vec(),
            objects: Vec::new(),
            features: None,
            caption: caption.to_owned(),
            cut: None,
        };
        let pictures: Vec<EncodedPicture> = raw.chunks(each).zip(CAPTIONS).map(picture).collect();
        let cache = LatentCache::of(&pictures, CHANNELS);
        TextLatents {
            tokens: Tokens::new(&painter.texts, &cache.captions).unwrap(),
            cache,
            seed: self.seed,
        }
    }

    fn unet(&self) -> Component<Unet2dCondition> {
        networks::unet(&self.config, 0).unwrap()
    }

    fn teacher(&self) -> (Trainee, TextLatents) {
        let painter = Painter::fresh(&self.config).unwrap();
        let data = self.data(&painter);
        (trainee(&self.config, painter), data)
    }

    fn student(&self) -> (Trainee, TextLatents) {
        self.student_of(Painter::fresh(&self.config).unwrap())
    }

    /// Beside its teacher, so that it has something to learn.
    fn student_of(&self, painter: Painter) -> (Trainee, TextLatents) {
        let mut params = painter.unet.params.iter();
        let (_, bias) = params.find(|(key, _)| key == "conv_out.bias").unwrap();
        bias.update(|values| values.iter_mut().for_each(|x| *x += 0.5));
        let data = self.data(&painter);
        (trainee(&self.config, painter), data)
    }
}

/// Of each parameter in the order of the sorted names, its name, the gradient's norm and eight of its values.
fn first_gradients(objective: &dyn Objective, index: usize) -> Vec<(String, Vec<f32>)> {
    let players = objective.players();
    for (i, player) in players.iter().enumerate() {
        for (_, param) in &player.params {
            param.set_trainable(i == index);
        }
    }
    let batch = Batch {
        player: index,
        number: 0,
        progress: 0.0,
    };
    let gradients = objective.loss(batch).unwrap().total.backward();
    let mut rows: Vec<_> = players[index]
        .params
        .iter()
        .map(|(key, param)| {
            let zeros = vec![0.0; param.numel()];
            let gradient = gradients.param(param).map_or(&zeros[..], |gradient| gradient.data());
            let norm = gradient.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
            let values = (0..8).map(|i| gradient[i * gradient.len() / 8]);
            (key.clone(), std::iter::once(norm).chain(values).collect())
        })
        .collect();
    for (_, param) in players.iter().flat_map(|player| &player.params) {
        param.set_trainable(false);
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

/// Each gradient's norm, and its values against their root mean square; those that are nothing beside all others have to be so too.
fn check_gradients(name: &str, player: &str, numels: &[usize], got: &[(String, Vec<f32>)], want: &[f32]) {
    assert_eq!(
        9 * got.len(),
        want.len(),
        "{name}: {player} has another number of parameters"
    );
    let all = want.chunks(9).map(|row| row[0].powi(2)).sum::<f32>().sqrt();
    let mut farthest = 0.0f32;
    for (((key, got), want), numel) in got.iter().zip(want.chunks(9)).zip(numels) {
        let nothing = 1e-5 * all;
        let root = want[0] / (*numel as f32).sqrt();
        for (i, (a, b)) in got.iter().zip(want).enumerate() {
            let size = if i == 0 { *b } else { root.max(b.abs()) };
            let difference = (a - b).abs() / size.max(nothing / TOLERANCE.sqrt());
            farthest = farthest.max(difference);
            assert!(
                difference <= TOLERANCE,
                "{name}: {player}'s {key}[{i}] is {a}, PyTorch's {b}"
            );
        }
    }
    println!("{name}: {player}'s first gradients differ by {farthest:.1e}");
}

/// Of the steps in which the player had a turn.
fn losses(dir: &Path, player: Option<&str>) -> Vec<f32> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let key = player.map_or("loss".to_owned(), |player| format!("{player}/loss"));
    let of = |line: &str| serde_json::from_str::<Value>(line).unwrap()[&key].as_f64();
    text.lines().filter_map(of).map(|loss| loss as f32).collect()
}

/// Compares the objective that `make` makes with PyTorch's.
fn follows(name: &str, make: impl Fn(&Parts) -> Box<dyn Objective>) {
    let folder = Scratch::new(&format!("parity-{name}"));
    let file = goldens().join(format!("training/{name}.json"));
    let fixture: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let scheduler = json!({ "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "rescale_betas_zero_snr": true });
    let parts = Parts {
        config: folder.config(json!({ "model": goldens().join("tiny-sdxl"), "scheduler": scheduler })),
        section: fixture["section"].clone(),
        seed: fixture["seed"].as_u64().unwrap(),
    };
    let mut objective = make(&parts);
    assert_eq!(objective.name(), fixture["stage"]);
    let wanted = TensorFile::open(&goldens().join(format!("training/{name}.safetensors"))).unwrap();
    let players = objective.players();
    for (i, player) in players.iter().enumerate() {
        let got = first_gradients(&*objective, i);
        let numel = |key: &String| player.params.iter().find(|(k, _)| k == key).unwrap().1.numel();
        let numels: Vec<usize> = got.iter().map(|(key, _)| numel(key)).collect();
        check_gradients(
            name,
            player.name,
            &numels,
            &got,
            wanted.read(player.name).unwrap().data(),
        );
    }
    let section = &fixture["section"];
    let training = section.get("loop").unwrap_or(&section["lcm"]["loop"]);
    let training: LoopConfig = serde_json::from_value(training.clone()).unwrap();
    let mut options = RunOptions::alone(Budget::steps(fixture["steps"].as_u64().unwrap()), false);
    let dir = folder.join("run");
    run(&mut *objective, &training, &dir, &mut options).unwrap();
    assert!(newest(&dir).exists());
    for player in &players {
        let got = losses(&dir, (players.len() > 1).then_some(player.name));
        let want: Vec<f32> = serde_json::from_value(fixture["losses"][player.name].clone()).unwrap();
        assert_eq!(got.len(), want.len());
        let differences = got.iter().zip(&want).map(|(a, b)| (a / b - 1.0).abs());
        let farthest = differences.fold(0.0, f32::max);
        println!("{name}: {}'s losses differ by {farthest:.1e}", player.name);
        assert!(
            farthest <= TOLERANCE,
            "{name}: {} has {got:?}, PyTorch {want:?}",
            player.name
        );
    }
}

#[test]
fn the_teacher_follows_pytorch() {
    follows("teacher", |parts| {
        let (model, data) = parts.teacher();
        Box::new(Teacher::new(parts.stage(), model, data, noising()).unwrap())
    });
}

#[test]
fn progressive_distillation_follows_pytorch() {
    follows("progressive", |parts| {
        let (student, data) = parts.student();
        Box::new(Progressive::new(parts.stage(), student, parts.unet(), data, &default_scheduler()).unwrap())
    });
}

#[test]
fn latent_consistency_follows_pytorch() {
    follows("lcm", |parts| {
        let (student, data) = parts.student();
        Box::new(Lcm {
            config: parts.stage(),
            ladder: serde_json::from_value(parts.section["timesteps"].clone()).unwrap(),
            student,
            data,
            learns: Learns::Whole {
                target: Box::new(parts.unet()),
                teacher: Box::new(parts.unet().network),
            },
            noising: noising(),
        })
    });
}

#[test]
fn latent_consistency_of_a_student_that_is_told_its_guidance_follows_pytorch() {
    follows("lcm-guidance-input", |parts| {
        let config: LcmConfig = parts.stage();
        let dim = config.guidance_input().unwrap();
        let painter = Painter::fresh(&parts.config).unwrap().with_guidance_input(dim).unwrap();
        let (student, data) = parts.student_of(painter);
        Box::new(Lcm {
            config,
            ladder: serde_json::from_value(parts.section["timesteps"].clone()).unwrap(),
            student,
            data,
            learns: Learns::Whole {
                target: Box::new(networks::with_guidance_input(parts.unet(), dim).unwrap()),
                teacher: Box::new(parts.unet().network),
            },
            noising: noising(),
        })
    });
}

/// With something in `B` too, so that the first gradients of `A` are not nothing.
fn begin(params: &[(String, Param)], seed: u64) {
    let mut random = RandomInit::new(seed + 1);
    for (key, param) in params.iter().filter(|(key, _)| key.ends_with("lora_B.weight")) {
        let shape = param.shape();
        let start = random.param(key, &shape, Init::FanIn(shape[1])).unwrap();
        param.set(&start.tensor());
    }
}

#[test]
fn a_lora_follows_pytorch() {
    for name in ["lora", "lora-few-steps"] {
        follows(name, |parts| {
            let (model, own) = parts.teacher();
            let prior = (name == "lora-few-steps").then(|| TextLatents {
                seed: parts.seed + 1,
                ..parts.teacher().1
            });
            let lora = Lora::new(parts.stage(), model, own, prior, noising()).unwrap();
            begin(&lora.layers.params, parts.seed);
            Box::new(lora)
        });
    }
}

#[test]
fn a_latent_consistency_lora_follows_pytorch() {
    follows("lcm-lora", |parts| {
        let (student, data) = parts.teacher();
        let LcmLoraConfig { size, lcm } = parts.stage();
        let learns = learns_a_lora(&size, &student, parts.seed).unwrap();
        if let Learns::Lora { student, target } = &learns {
            begin(&student.params, parts.seed);
            begin(&target.params, parts.seed + 1);
        }
        Box::new(Lcm {
            config: lcm,
            ladder: serde_json::from_value(parts.section["lcm"]["timesteps"].clone()).unwrap(),
            student,
            data,
            learns,
            noising: noising(),
        })
    });
}

#[test]
fn latent_adversarial_distillation_follows_pytorch() {
    follows("ladd", |parts| {
        let (student, data) = parts.student();
        Box::new(Ladd::new(parts.stage(), student, parts.unet().network, data, noising()).unwrap())
    });
}

#[test]
fn adversarial_distillation_follows_pytorch() {
    for name in ["add", "add-nfsd", "add-sds"] {
        follows(name, |parts| {
            let (student, data) = parts.student();
            let teacher = parts.unet().network;
            Box::new(Add::new(parts.stage(), student, teacher, tiny_features(), data, noising()).unwrap())
        });
    }
}

#[test]
fn a_gan_follows_pytorch() {
    follows("gan", |parts| {
        let (generator, data) = parts.student();
        Box::new(Gan::new(parts.stage(), generator, parts.unet(), data, noising()).unwrap())
    });
}

#[test]
fn distribution_matching_follows_pytorch() {
    for name in ["dmd2", "dmd2-forward-kl"] {
        follows(name, |parts| {
            let (student, data) = parts.student();
            let (fake, teacher) = (parts.unet(), parts.unet().network);
            Box::new(Dmd2::new(parts.stage(), student, fake, teacher, data, noising()).unwrap())
        });
    }
}

#[test]
fn consistency_tuning_follows_pytorch() {
    follows("ect", |parts| {
        let (student, data) = parts.student();
        Box::new(Ect::new(parts.stage(), student, None, data, noising()).unwrap())
    });
    follows("ect-guided", |parts| {
        let (student, data) = parts.student();
        let teacher = Some(parts.unet().network);
        Box::new(Ect::new(parts.stage(), student, teacher, data, noising()).unwrap())
    });
}

#[test]
fn matching_moments_follows_pytorch() {
    follows("rdm", |parts| {
        let (student, data) = parts.student();
        Box::new(Rdm::new(parts.stage(), student, parts.unet().network, data, noising()).unwrap())
    });
}

#[test]
fn a_mean_flow_follows_pytorch() {
    for name in ["mean-flow", "mean-flow-guided"] {
        follows(name, |parts| {
            let (student, data) = parts.student();
            let teacher = (name == "mean-flow-guided").then(|| parts.unet().network);
            Box::new(MeanFlow::new(parts.stage(), student, teacher, data, noising()).unwrap())
        });
    }
}

#[test]
fn lightning_follows_pytorch() {
    follows("lightning", |parts| {
        let (student, data) = parts.student();
        let [teacher, judge] = [parts.unet(), parts.unet()];
        Box::new(Lightning::new(parts.stage(), student, teacher, judge, data, &default_scheduler()).unwrap())
    });
}
