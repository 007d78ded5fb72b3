//! Every table and trajectory of `goldens/schedulers.json` (diffusers), from its config as JSON.

use prima_schedulers::{NoiseSchedule, Schedule, ScheduleOptions, SchedulerConfig, SchedulerKind, State};
use serde_json::Value;

const WIDTH: usize = 3;

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/schedulers.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("goldens/schedulers.json")).expect("valid JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .expect("an array")
        .iter()
        .map(|v| v.as_f64().expect("a number"))
        .collect()
}

fn lanes(f: impl Fn(f64) -> f64) -> Vec<f64> {
    (0..WIDTH).map(|lane| f(lane as f64)).collect()
}

fn start_sample() -> Vec<f64> {
    lanes(|lane| (1.3 * lane + 0.4).cos())
}

fn clean_image() -> Vec<f64> {
    lanes(|lane| 0.5 * (0.9 * lane + 0.2).sin())
}

fn step_noise(index: usize) -> Vec<f64> {
    lanes(|lane| (2.1 * lane + 0.7 * index as f64 + 0.1).sin())
}

fn network(input: f64, lane: usize, timestep: f64) -> f64 {
    0.5 * input.tanh() + 0.3 * (0.7 * lane as f64 + 0.003 * timestep).cos()
}

/// Relative to the size of the numbers around, with a floor of 1.
fn assert_close(what: &str, case: &Value, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: {got:?} for {want:?} in {case}");
    let scale = want.iter().fold(1.0f64, |m, w| m.max(w.abs()));
    for (g, w) in got.iter().zip(want) {
        assert!(
            (g - w).abs() <= tolerance * scale,
            "{what}: got {got:?}, want {want:?} in {case}"
        );
    }
}

fn assert_relative(what: &str, case: &Value, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: {got:?} for {want:?} in {case}");
    for (g, w) in got.iter().zip(want) {
        assert!(
            (g - w).abs() <= tolerance * w.abs(),
            "{what}: got {got:?}, want {want:?} in {case}"
        );
    }
}

fn build(case: &Value) -> Schedule {
    let config = SchedulerConfig::from_json(&case["config"].to_string()).expect("a config");
    let options = ScheduleOptions {
        num_inference_steps: case["n"].as_u64().map(|n| n as usize),
        timesteps: case.get("explicit").map(numbers),
        eta: case["eta"].as_f64(),
        spacing: case["spacing"].as_str().map(|name| name.parse().expect("a spacing")),
        ..ScheduleOptions::default()
    };
    let schedule = Schedule::new(&config, &options).unwrap_or_else(|e| panic!("{e} in {case}"));
    match case["strength"].as_f64() {
        Some(strength) => schedule.truncate(strength).expect("a strength in range"),
        None => schedule,
    }
}

fn weighted_sum(terms: &[(f64, &Vec<f64>)]) -> Vec<f64> {
    (0..WIDTH)
        .map(|lane| terms.iter().map(|(weight, values)| weight * values[lane]).sum())
        .collect()
}

fn check_trajectory(case: &Value, schedule: &Schedule) {
    let start: Vec<f64> = if let Some(noisy) = case.get("noisy") {
        let (a, b) = schedule.add_noise();
        let sample: Vec<f64> = clean_image()
            .iter()
            .zip(start_sample())
            .map(|(x, n)| x * a + n * b)
            .collect();
        assert_close("noisy", case, &sample, &numbers(noisy), 1e-6);
        sample
    } else {
        start_sample().iter().map(|n| n * schedule.init_noise_sigma).collect()
    };
    let mut state = State::new(start);
    let wanted = case["trajectory"].as_array().expect("a trajectory");
    let skipped = schedule.len() - wanted.len();
    let mut steps = 0;
    // diffusers' coefficients are f32, and their last bits add up; Euler's sample is too, and loses
    // the last bits of its large start (4096 with a rescaled schedule).
    let largest = if case.get("noisy").is_some() {
        1.0
    } else {
        schedule.init_noise_sigma
    };
    let tolerance = 3e-7 * schedule.len().max(6) as f64 + 3e-8 * largest;
    for (i, row) in schedule.rows.iter().enumerate() {
        let model_output: Vec<f64> = (0..WIDTH)
            .map(|lane| network(state.sample[lane] * row.input_scale, lane, row.timestep))
            .collect();
        let noise = row.needs_noise().then(|| step_noise(schedule.start_index + i));
        state.advance(row, &model_output, noise.as_ref(), weighted_sum);
        steps += usize::from(row.ends_step);
        if row.ends_step && steps > skipped {
            assert_close(
                &format!("sample after step {steps}"),
                case,
                &state.sample,
                &numbers(&wanted[steps - skipped - 1]),
                tolerance,
            );
        }
    }
    assert_eq!(steps, schedule.len(), "{case}");
}

#[test]
fn tables_and_trajectories_are_those_of_diffusers() {
    let golden = golden();
    let cases = golden["cases"].as_array().expect("cases");
    assert!(cases.len() > 1100, "only {} cases", cases.len());
    for case in cases {
        let schedule = build(case);
        let rules = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"];
        let is_edm = case["config"].get("sigma_data").is_some();
        if is_edm || rules.iter().any(|rule| case["config"][rule] == true) {
            // Interpolated in logarithms of an f32 table; EDM's are such logarithms.
            assert_close(
                "timesteps",
                case,
                &schedule.timesteps,
                &numbers(&case["timesteps"]),
                1e-6,
            );
        } else {
            assert_relative(
                "timesteps",
                case,
                &schedule.timesteps,
                &numbers(&case["timesteps"]),
                1e-8,
            );
        }
        if let Some(sigmas) = case.get("sigmas") {
            // torch's f32 square root is off by a last bit on some processors, which the rescaling to a
            // signal of zero magnifies; everything else is the same bit for bit.
            let tolerance = if case["config"]["rescale_betas_zero_snr"] == true {
                1e-4
            } else if is_edm {
                // Powers of 7 in f32.
                5e-6
            } else {
                1e-6
            };
            assert_relative("sigmas", case, &schedule.sigmas, &numbers(sigmas), tolerance);
        }
        if let Some(init) = case["init_noise_sigma"].as_f64() {
            assert_relative("init_noise_sigma", case, &[schedule.init_noise_sigma], &[init], 1e-6);
        }
        check_trajectory(case, &schedule);
    }
}

#[test]
fn alphas_cumprod_are_those_of_diffusers() {
    for case in golden()["noise_schedules"].as_array().expect("noise schedules") {
        let config = SchedulerConfig::from_json(&case["config"].to_string()).expect("a config");
        let noise = NoiseSchedule::new(&config, SchedulerKind::Ddim).expect("a noise schedule");
        let got: Vec<f64> = numbers(&case["indices"])
            .iter()
            .map(|&i| noise.alphas_cumprod()[i as usize])
            .collect();
        let wanted = numbers(&case["alphas_cumprod"]);
        if case["config"]["rescale_betas_zero_snr"] == true {
            assert_close("alphas_cumprod", case, &got, &wanted, 5e-7);
        } else {
            // Nine digits tell any two f32 apart.
            let single = |v: &f64| (*v as f32).to_bits();
            assert_eq!(
                got.iter().map(single).collect::<Vec<_>>(),
                wanted.iter().map(single).collect::<Vec<_>>(),
                "{case}"
            );
        }
    }
}
