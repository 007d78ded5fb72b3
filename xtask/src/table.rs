//! One teacher, the same CPU time for each method on the same machine, and what came of it. Everything is kept below the teacher's run
//! folder, so that the same command goes on wherever it was stopped.

mod cost;
mod results;

use crate::{describe, run};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub struct Args {
    /// The teacher's configuration, whose run folder has its stages and the latents
    config: PathBuf,
    /// CPU minutes for each method
    #[arg(long)]
    minutes: f64,
    /// What is compared: rows with a stage, its section, and the numbers of steps at which its student paints
    #[arg(long, default_value = "recipes/table.json")]
    recipe: PathBuf,
    /// Rows by name; all where absent
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The page; the numbers go beside it, into .json
    #[arg(short, long, default_value = "docs/results/table.md")]
    output: PathBuf,
    /// EfficientNet-lite0 weights, for distances and diversity
    #[arg(long)]
    features: PathBuf,
    /// Real pictures, for distances
    #[arg(long)]
    real: Option<PathBuf>,
    /// A judge, for accuracy
    #[arg(long)]
    judge: Option<PathBuf>,
    /// As of `prima eval report`
    #[arg(long, default_value = "hundred")]
    prompts: String,
    #[arg(long, default_value_t = 100)]
    count: usize,
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// Training steps by which a method's cost is measured
    #[arg(long, default_value_t = 16)]
    probe: u64,
    /// A prima that is built [default: built now]
    #[arg(long)]
    prima: Option<PathBuf>,
}

/// `recipes/table.json`.
#[derive(Deserialize)]
struct Recipe {
    /// That the teacher is sampled with.
    guidance_scale: f64,
    teacher_steps: Vec<usize>,
    /// Of every row, where its section has none.
    #[serde(rename = "loop")]
    training: Value,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    stage: String,
    steps: Vec<usize>,
    section: Value,
}

/// How many steps a method's share of time is, settled once.
#[derive(Deserialize, Serialize)]
struct Plan {
    minutes: f64,
    section: Value,
    cpu_s_a_step: f64,
    steps: u64,
}

/// The work of one table.
struct Table<'a> {
    args: &'a Args,
    prima: PathBuf,
    recipe: Recipe,
    /// The teacher's.
    config: Value,
    run_dir: PathBuf,
}

/// What there is to measure: a model, and at which numbers of steps.
struct Trained {
    name: String,
    folder: PathBuf,
    model: PathBuf,
    steps: Vec<usize>,
    plan: Option<Plan>,
}

pub fn make(root: &Path, args: &Args) -> Result<()> {
    let prima = match &args.prima {
        Some(prima) => prima.clone(),
        None => crate::benches::built(root, "prima-cli", "prima")?,
    };
    let recipe: Recipe = serde_json::from_value(read_json(&args.recipe)?)
        .with_context(|| format!("{} is no recipe of a table", args.recipe.display()))?;
    if let Some(unknown) = args
        .only
        .iter()
        .find(|name| recipe.rows.iter().all(|row| &row.name != *name))
    {
        bail!("{} has no row {unknown:?}", args.recipe.display());
    }
    let config = read_json(&args.config)?;
    let run_dir = config["run_dir"].as_str().context("the configuration has no run_dir")?;
    let table = Table {
        run_dir: PathBuf::from(run_dir),
        args,
        prima,
        recipe,
        config,
    };
    table.all()
}

impl Table<'_> {
    /// The page is written anew after each row.
    fn all(&self) -> Result<()> {
        let mut rows = Vec::new();
        let teacher = self.teacher()?;
        rows.extend(results::measured(&teacher, self.args, &self.prima)?);
        let solver = self.teacher_with_solver(&teacher)?;
        rows.extend(results::measured(&solver, self.args, &self.prima)?);
        results::write(&rows, self.args)?;
        let is_wanted = |row: &&Row| self.args.only.is_empty() || self.args.only.contains(&row.name);
        for row in self.recipe.rows.iter().filter(is_wanted) {
            let trained = self.trained(row)?;
            rows.extend(results::measured(&trained, self.args, &self.prima)?);
            results::write(&rows, self.args)?;
        }
        println!("{}", self.args.output.display());
        Ok(())
    }

    /// The folder of a row, with the teacher's stages in it by links.
    fn folder(&self, name: &str, stage: &str) -> Result<PathBuf> {
        let folder = self.run_dir.join("table").join(name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for entry in fs::read_dir(&self.run_dir).with_context(|| self.run_dir.display().to_string())? {
            let (path, name) = {
                let entry = entry?;
                (entry.path(), entry.file_name())
            };
            let link = folder.join(&name);
            if name != "table" && name != stage && path.is_dir() && !link.exists() {
                linked(&path.canonicalize()?, &link)?;
            }
        }
        Ok(folder)
    }

    /// The teacher's configuration with another run folder, and what is exported from there.
    fn configure(&self, folder: &Path, stage: &str, name: &str, section: Option<&Value>) -> Result<PathBuf> {
        let mut config = self.config.clone();
        config["run_dir"] = json!(folder);
        config["export"] = json!({ "folder": folder.join("model"), "name": name, "stage": stage });
        match section {
            Some(section) => config[stage] = section.clone(),
            None => config["export"]["guidance_scale"] = json!(self.recipe.guidance_scale),
        }
        let path = folder.join("config.json");
        write_json(&path, &config)?;
        Ok(path)
    }

    fn export(&self, config: &Path, folder: &Path) -> Result<PathBuf> {
        let model = folder.join("model");
        // Written last.
        if !model.join("model_index.json").exists() {
            run(Command::new(&self.prima).args(["train", "export"]).arg(config))?;
        }
        Ok(model)
    }

    fn teacher(&self) -> Result<Trained> {
        let folder = self.folder("teacher", "")?;
        let config = self.configure(&folder, "teacher", "teacher", None)?;
        Ok(Trained {
            name: "teacher".to_owned(),
            model: self.export(&config, &folder)?,
            steps: self.recipe.teacher_steps.clone(),
            folder,
            plan: None,
        })
    }

    /// The teacher's model with DPM-Solver++ 2M.
    fn teacher_with_solver(&self, teacher: &Trained) -> Result<Trained> {
        let folder = self.run_dir.join("table/teacher-dpm-solver");
        let model = folder.join("model");
        if !model.join("model_index.json").exists() {
            copy(&teacher.model, &model)?;
            let path = model.join("scheduler/scheduler_config.json");
            let mut scheduler = read_json(&path)?;
            scheduler["_class_name"] = json!("DPMSolverMultistepScheduler");
            write_json(&path, &scheduler)?;
            fs::copy(teacher.model.join("model_index.json"), model.join("model_index.json"))?;
        }
        Ok(Trained {
            name: "teacher, DPM-Solver++".to_owned(),
            folder,
            model,
            steps: vec![8],
            plan: None,
        })
    }

    fn trained(&self, row: &Row) -> Result<Trained> {
        let folder = self.folder(&row.name, &row.stage)?;
        let mut section = row.section.clone();
        if section.get("loop").is_none() {
            section["loop"] = self.recipe.training.clone();
        }
        let config = self.configure(&folder, &row.stage, &row.name, Some(&section))?;
        let plan = self.plan(row, &folder, section)?;
        if !is_done(&folder.join(&row.stage), plan.steps) {
            let steps = plan.steps.to_string();
            let mut train = Command::new(&self.prima);
            train
                .args(["train", &row.stage])
                .arg(&config)
                .args(["--steps", &steps, "--resume"]);
            run(&mut train).context("to go on, give the same command again")?;
        }
        Ok(Trained {
            name: row.name.clone(),
            model: self.export(&config, &folder)?,
            steps: row.steps.clone(),
            folder,
            plan: Some(plan),
        })
    }

    /// The steps that fit the time, by a short run over the method's whole schedule.
    fn plan(&self, row: &Row, folder: &Path, section: Value) -> Result<Plan> {
        let path = folder.join("plan.json");
        if path.exists() {
            let plan: Plan = serde_json::from_value(read_json(&path)?)?;
            if plan.minutes != self.args.minutes || plan.section != section {
                bail!(
                    "{} was begun with another recipe or time: remove it, or go on as it was begun",
                    folder.display()
                );
            }
            return Ok(plan);
        }
        let probe = self.folder(&format!("{}/probe", row.name), &row.stage)?;
        let config = self.configure(&probe, &row.stage, &row.name, Some(&section))?;
        let steps = self.args.probe.to_string();
        let train = |how: &str| -> Result<f64> {
            let mut train = Command::new(&self.prima);
            train
                .args(["train", &row.stage])
                .arg(&config)
                .args(["--steps", &steps, how]);
            cost::of(|| run(&mut train))
        };
        let whole = train("--overwrite")?;
        // The same start and end without a step between them.
        let around = train("--resume")?;
        let cpu_s_a_step = ((whole - around) / self.args.probe as f64).max(1e-3);
        fs::remove_dir_all(&probe).with_context(|| probe.display().to_string())?;
        let plan = Plan {
            minutes: self.args.minutes,
            section,
            cpu_s_a_step,
            steps: ((60.0 * self.args.minutes / cpu_s_a_step) as u64).max(1),
        };
        write_json(&path, &serde_json::to_value(&plan)?)?;
        Ok(plan)
    }
}

#[cfg(unix)]
fn linked(path: &Path, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(path, link).with_context(|| link.display().to_string())
}

#[cfg(not(unix))]
fn linked(_path: &Path, link: &Path) -> Result<()> {
    bail!(
        "{}: a table is made on Linux alone, which tells processor time",
        link.display()
    )
}

/// Did a stage come to the end of its steps?
fn is_done(stage: &Path, steps: u64) -> bool {
    read_json(&stage.join("summary.json"))
        .is_ok_and(|summary| summary["steps"].as_u64() == Some(steps) && summary["stopped"] != true)
}

/// A folder's files but for its index, which is copied last by whoever wants it whole.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let (path, name) = {
            let entry = entry?;
            (entry.path(), entry.file_name())
        };
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else if name != "model_index.json" {
            fs::copy(&path, to.join(name)).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
}

/// There whole, or as it was.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).with_context(|| beside.display().to_string())?;
    fs::rename(&beside, path).with_context(|| path.display().to_string())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_whole(path, format!("{}\n", serde_json::to_string_pretty(value)?).as_bytes())
}

/// What a command says on stdout.
fn said(command: &mut Command) -> Result<Vec<u8>> {
    let line = describe(command);
    eprintln!("xtask: {line}");
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    Ok(output.stdout)
}
