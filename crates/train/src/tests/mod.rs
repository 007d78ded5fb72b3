//! Tests that train: whole objectives on tiny networks.

#[path = "../../tests/common/mod.rs"]
mod common;
mod lora;
mod objectives;
mod origin;
mod parity;
mod players;
mod states;

use crate::captions::Tokens;
use crate::config::TrainConfig;
use crate::group::{Group, Launch};
use crate::latent_cache::{EncodedPicture, FeatureMap, LatentCache};
use crate::networks::{self, kl};
use crate::noising::{Noising, default_scheduler};
use crate::objective::{Batch, Objective, Player};
use crate::objectives::{
    Add, Autoencoder, Corpus, Decoder, Dmd2, Ect, Gan, Ladd, LatentPainter, Lcm, Learns, Lightning, MeanFlow,
    PictureLoss, Progressive, Rdm, StageConfig, Teacher, Text, TextLatents, Trainee, learns_a_lora, painter_schedules,
};
use crate::params::NamedParams;
use crate::trained::Painter;
use crate::trainer::{AdamWConfig, Budget, LoopConfig, LrScheduler, RunOptions};
use common::write_dataset;
use prima_checkpoint::Reader;
use prima_data::{Composer, ComposerOptions, Dataset, Profile};
use prima_models::feature_networks::efficientnet_lite;
use prima_models::{EfficientNetLite, EfficientNetLiteConfig};
use prima_schedulers::SchedulerKind;
use prima_tensor::{Param, Philox, Tensor};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// `work(rank, options)` of two processes that train together, here each a thread.
fn in_a_group_of_two(budget: Budget, work: impl Fn(usize, RunOptions) + Sync) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let start = |rank: usize| {
        let group = Group::join(Launch {
            rank,
            world: 2,
            local_rank: rank,
            host: "127.0.0.1".into(),
            port,
        });
        let options = RunOptions {
            group: group.unwrap(),
            ..RunOptions::alone(budget, false)
        };
        work(rank, options);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| start(1));
        start(0);
    });
}

/// A folder that goes with its last test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("prima-train-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// One with a data set.
    fn with_data(name: &str) -> Self {
        let scratch = Self::new(name);
        write_dataset(&scratch.join("data"));
        scratch
    }

    fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// The configuration of a run in it, with `sections` over what all runs here have.
    fn config(&self, sections: Value) -> TrainConfig {
        let mut config = json!({
            "data_dir": self.join("data"), "run_dir": self.join("run"),
            "export": { "folder": self.join("exported"), "name": "tiny" },
        });
        for (key, value) in sections.as_object().unwrap() {
            config[key] = value.clone();
        }
        let path = self.join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        TrainConfig::open(&path, |model| prima_checkpoint::ModelSource::open(model)).unwrap()
    }

    /// With the tiny networks at random.
    fn random(&self) -> TrainConfig {
        self.config(json!({ "networks": common::configs() }))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn training() -> LoopConfig {
    LoopConfig {
        optimizer: optimizer(),
        batches_per_step: 2,
        bf16_products: false,
        recompute: false,
        ema_decay: 0.9,
        log_every: 10,
        sample_every: 1_000_000,
        save_every_s: 1000,
        keep: 2,
    }
}

/// A stage's section with these fields, and that `loop`.
fn stage<C: StageConfig>(mut fields: Value) -> C {
    fields["loop"] = serde_json::to_value(training()).unwrap();
    serde_json::from_value(fields).unwrap()
}

fn optimizer() -> AdamWConfig {
    AdamWConfig {
        learning_rate: 3e-3,
        lr_warmup_steps: 1,
        lr_scheduler: LrScheduler::Constant,
        ..AdamWConfig::default()
    }
}

/// Eight captions, each with its own picture.
fn data(painter: &Painter) -> TextLatents {
    let noise = Philox {
        seed: 5,
        image: 0,
        purpose: 99,
        step: 0,
    }
    .normal(8 * 4 * 4 * 4);
    let picture = |(i, latents): (usize, &[f32])| EncodedPicture {
        size: [4, 4],
        latents: latents.to_vec(),
        objects: Vec::new(),
        features: Some(FeatureMap {
            shape: [4, 4, 3],
            values: latents[..48].to_vec(),
        }),
        caption: format!("thing {i}"),
        cut: None,
    };
    let pictures: Vec<EncodedPicture> = noise.chunks(4 * 4 * 4).enumerate().map(picture).collect();
    let cache = LatentCache::of(&pictures, 4);
    TextLatents {
        tokens: Tokens::new(&painter.texts, &cache.captions).unwrap(),
        cache,
        seed: 1,
    }
}

fn trainee(config: &TrainConfig, painter: Painter) -> Trainee {
    let vae = networks::vae(config, None, 0).unwrap().network;
    Trainee::of(config, painter, vae).unwrap()
}

fn noising() -> Noising {
    Noising::new(&default_scheduler()).unwrap()
}

fn teacher(folder: &Scratch) -> Teacher {
    aligned_teacher(folder, 0.0)
}

fn aligned_teacher(folder: &Scratch, alignment: f32) -> Teacher {
    let config = folder.random();
    let painter = Painter::fresh(&config).unwrap();
    let data = data(&painter);
    Teacher::new(
        stage(json!({ "batch_size": 8, "alignment": alignment })),
        trainee(&config, painter),
        data,
        noising(),
    )
    .unwrap()
}

fn text(folder: &Scratch) -> Text {
    let config = folder.random();
    let texts = networks::texts(&config, 2).unwrap();
    let corpus = Corpus::open(&config.data_dir, &texts).unwrap();
    Text::new(stage(json!({ "batch_size": 4 })), texts, corpus, 1).unwrap()
}

/// A student that starts elsewhere than its teacher, so that it has something to learn.
fn lcm(folder: &Scratch) -> Lcm {
    let config = folder.random();
    let student = Painter::fresh(&config).unwrap();
    for (key, param) in &student.unet.params {
        if key.starts_with("conv_out") {
            param.update(|v| {
                for (i, x) in v.iter_mut().enumerate() {
                    *x += 0.3 * ((i % 7) as f32 - 3.0);
                }
            });
        }
    }
    Lcm {
        config: stage(json!({ "batch_size": 8 })),
        data: data(&student),
        student: trainee(&config, student),
        learns: Learns::Whole {
            target: Box::new(networks::unet(&config, 3).unwrap()),
            teacher: Box::new(networks::unet(&config, 3).unwrap().network),
        },
        noising: noising(),
        ladder: vec![999, 749, 499, 249],
    }
}

fn progressive(folder: &Scratch) -> Progressive {
    let config = folder.random();
    let painter = Painter::fresh(&config).unwrap();
    let teacher = networks::unet(&config, 3).unwrap();
    // One that does more than nothing.
    for (key, param) in &teacher.params {
        if key.starts_with("conv_out") {
            param.update(|v| {
                for (i, x) in v.iter_mut().enumerate() {
                    *x += 0.3 * ((i % 7) as f32 - 3.0);
                }
            });
        }
    }
    let fields = json!({ "batch_size": 8, "teacher_steps": 8, "steps": [4, 2], "guidance_scale": 1.5 });
    let data = data(&painter);
    Progressive::new(
        stage(fields),
        trainee(&config, painter),
        teacher,
        data,
        &default_scheduler(),
    )
    .unwrap()
}

/// A painter whose answers lie elsewhere than the real latents, which are normal noise.
fn displaced(config: &TrainConfig) -> Painter {
    let student = Painter::fresh(config).unwrap();
    for (key, param) in &student.unet.params {
        if key == "conv_out.bias" {
            param.update(|v| v.fill(-1.0));
        }
    }
    student
}

fn ect(folder: &Scratch, guidance_scale: f32) -> Ect {
    let config = folder.random();
    let student = displaced(&config);
    let data = data(&student);
    let teacher = (guidance_scale != 1.0).then(|| networks::unet(&config, 3).unwrap().network);
    let fields = json!({ "batch_size": 8, "guidance_scale": guidance_scale, "max_noise_share": 0.5 });
    Ect::new(stage(fields), trainee(&config, student), teacher, data, noising()).unwrap()
}

/// A student whose answers lie elsewhere than its teacher's.
fn lightning(folder: &Scratch, steps: Value, mse_phases: usize, trajectory_share: f32) -> Lightning {
    let config = folder.random();
    let student = displaced(&config);
    let data = data(&student);
    let fields = json!({ "batch_size": 8, "teacher_steps": 4, "steps": steps, "guidance_scale": 1.0,
        "mse_phases": mse_phases, "trajectory_share": trajectory_share });
    let [teacher, judge] = [3, 3].map(|seed| networks::unet(&config, seed).unwrap());
    let student = trainee(&config, student);
    Lightning::new(stage(fields), student, teacher, judge, data, &default_scheduler()).unwrap()
}

fn mean_flow(folder: &Scratch, guidance_scale: f32) -> MeanFlow {
    let config = folder.random();
    let student = displaced(&config);
    let data = data(&student);
    let teacher = (guidance_scale != 1.0).then(|| networks::unet(&config, 3).unwrap().network);
    let fields = json!({ "batch_size": 8, "guidance_scale": guidance_scale });
    MeanFlow::new(stage(fields), trainee(&config, student), teacher, data, noising()).unwrap()
}

fn rdm(folder: &Scratch) -> Rdm {
    let config = folder.random();
    let student = displaced(&config);
    let data = data(&student);
    let teacher = networks::unet(&config, 3).unwrap().network;
    let fields = json!({ "batch_size": 16, "timesteps": [999, 499] });
    Rdm::new(stage(fields), trainee(&config, student), teacher, data, noising()).unwrap()
}

fn ladd(folder: &Scratch) -> Ladd {
    let config = folder.random();
    let student = displaced(&config);
    let fields = json!({ "batch_size": 8, "timesteps": [999], "shares": [1.0], "discriminator_updates": 2 });
    let data = data(&Painter::fresh(&config).unwrap());
    let teacher = networks::unet(&config, 3).unwrap().network;
    Ladd::new(stage(fields), trainee(&config, student), teacher, data, noising()).unwrap()
}

/// Without a teacher.
fn gan(folder: &Scratch) -> Gan {
    let config = folder.random();
    let generator = displaced(&config);
    let fields = json!({ "batch_size": 8, "discriminator_updates": 2, "transport_weight": 0.0 });
    let data = data(&Painter::fresh(&config).unwrap());
    let judge = networks::unet_at_random(&config, 4).unwrap();
    Gan::new(stage(fields), trainee(&config, generator), judge, data, noising()).unwrap()
}

/// LADD's game, judged in pixels.
fn add(folder: &Scratch) -> Add {
    let config = folder.random();
    let student = displaced(&config);
    let fields = json!({ "batch_size": 2, "timesteps": [999], "shares": [1.0], "guidance_scale": 1.0 });
    let data = data(&Painter::fresh(&config).unwrap());
    let teacher = networks::unet(&config, 3).unwrap().network;
    Add::new(
        stage(fields),
        trainee(&config, student),
        teacher,
        tiny_features(),
        data,
        noising(),
    )
    .unwrap()
}

/// A feature network of three sizes, with the random weights of a fixture.
fn tiny_features() -> EfficientNetLite {
    let weights = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../goldens/efficientnet-lite/model.safetensors"
    ));
    let stage = |[blocks, kernel, stride, expand, channels]: [usize; 5]| efficientnet_lite::StageConfig {
        blocks,
        kernel,
        stride,
        expand,
        channels,
    };
    let config = EfficientNetLiteConfig {
        stem: 8,
        stages: [[1, 3, 1, 1, 4], [2, 3, 2, 6, 6], [2, 5, 2, 6, 8]].map(stage).to_vec(),
        head: 24,
        classes: 10,
    };
    EfficientNetLite::new(&config, &mut Reader::open(&weights).unwrap()).unwrap()
}

/// A LoRA that learns latent consistency.
fn lcm_lora(folder: &Scratch) -> Lcm {
    let whole = lcm(folder);
    let size = serde_json::from_value(json!({ "rank": 2, "layers": "all" })).unwrap();
    Lcm {
        learns: learns_a_lora(&size, &whole.student, 1).unwrap(),
        ..whole
    }
}

/// A student whose pictures lie elsewhere than its teacher's, which has learnt nothing: to it, all is normal noise.
fn dmd2(folder: &Scratch, gan_weight: f32) -> Dmd2 {
    let config = folder.random();
    let student = displaced(&config);
    let fields = json!({ "batch_size": 8, "fake_updates": 2, "guidance_scale": 1.0, "gan_weight": gan_weight, "timesteps": [999, 499] });
    Dmd2::new(
        stage(fields),
        trainee(&config, student),
        networks::unet(&config, 3).unwrap(),
        networks::unet(&config, 3).unwrap().network,
        data(&Painter::fresh(&config).unwrap()),
        noising(),
    )
    .unwrap()
}

fn autoencoder(folder: &Scratch) -> Autoencoder {
    let config = folder.random();
    let dataset = Dataset::open(&config.data_dir).unwrap();
    let composer = Composer::new(dataset, ComposerOptions::for_profile(Profile::Core, 0)).unwrap();
    let vae = kl(networks::vae(&config, None, 0).unwrap()).unwrap();
    Autoencoder::new(
        stage(json!({ "batch_size": 2, "crop_px": 32 })),
        vae,
        Box::new(composer),
        picture_loss(),
        0,
    )
    .unwrap()
}

fn picture_loss() -> PictureLoss {
    PictureLoss::new(serde_json::from_value(json!({})).unwrap(), None)
}

/// The decoder, half of whose latents a painter makes, and the first weight of its encoder, which is not trained.
fn decoder(folder: &Scratch, batch_size: usize) -> (Decoder, Param) {
    let config = folder.random();
    let vae = kl(networks::vae(&config, None, 0).unwrap()).unwrap();
    let is_first = |(key, _): &&(String, Param)| key.starts_with("encoder.conv_in");
    let encoder = vae.params.iter().find(is_first).unwrap().1.clone();
    let options = ComposerOptions {
        style: 1.0,
        ..ComposerOptions::for_profile(Profile::Core, 0)
    };
    let composer = Composer::new(Dataset::open(&config.data_dir).unwrap(), options).unwrap();
    let painter = Painter::fresh(&config).unwrap();
    let painter = LatentPainter {
        unet: painter.unet.network,
        text_encoders: painter.texts.encoders,
        schedules: painter_schedules(&default_scheduler(), SchedulerKind::Euler, &[vec![999], vec![999, 500]]).unwrap(),
        style: "noto".into(),
        unnamed_share: 0.5,
        size_px: [128.0; 2],
    };
    let fields = json!({ "batch_size": batch_size, "painter_share": 0.5 });
    (
        Decoder::new(stage(fields), vae, Box::new(composer), Some(painter), picture_loss(), 0),
        encoder,
    )
}

/// The parameters of an objective's only player, trainable.
fn trainable(objective: &dyn Objective) -> NamedParams {
    let [player]: [Player; 1] = objective.players().try_into().ok().unwrap();
    for (_, param) in &player.params {
        param.set_trainable(true);
    }
    player.params
}

fn loss(objective: &dyn Objective, number: u64) -> Tensor {
    let batch = Batch {
        player: 0,
        number,
        progress: 0.0,
    };
    objective.loss(batch).unwrap().total
}
