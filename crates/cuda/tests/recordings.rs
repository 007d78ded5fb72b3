//! Recorded work (CUDA graphs) on the emulated device: when it is recorded, that a replay computes what a plain run does, and when
//! a recording is dropped.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use common::random_tensor;
use prima_emulator as emulator;
use prima_tensor::{
    Activation, DType, Device, DeviceError, Param, RecordingCounts, Repeatable, Tensor, add, affine, attention, device,
    linear, no_grad, weighted_mse,
};
use std::convert::Infallible;

/// A little network: its output is `[1, L, 8]` like its input.
struct Network {
    weight: Param,
    bias: Param,
    repeatable: Repeatable,
}

impl Network {
    fn new() -> Self {
        Self {
            weight: Param::new(random_tensor(1, &[8, 8])),
            bias: Param::new(random_tensor(2, &[8])),
            repeatable: Repeatable::default(),
        }
    }

    fn pass(&self, x: &Tensor, shift: &Tensor) -> Tensor {
        let hidden = linear(x, &self.weight, Some(&self.bias), Activation::Silu, Some(x));
        add(&attention(&hidden, &hidden, x, 2, false), shift)
    }

    fn plain(&self, inputs: &[&Tensor; 2]) -> Vec<f32> {
        no_grad(|| self.pass(inputs[0], inputs[1])).data().to_vec()
    }

    fn repeated(&self, inputs: &[&Tensor; 2]) -> Vec<f32> {
        let run = || {
            self.repeatable
                .run(inputs, |x| Ok::<_, Infallible>(self.pass(&x[0], &x[1])))
        };
        no_grad(run).unwrap_or_else(|never| match never {}).data().to_vec()
    }
}

/// Inputs of `length` rows: one on the device, one on the host.
fn inputs(device: &Device, seed: u64, length: usize) -> [Tensor; 2] {
    let [x, shift] = [seed, seed + 100].map(|seed| random_tensor(seed, &[1, length, 8]));
    [device.copy(&x), shift]
}

fn counts(device: &Device) -> [usize; 4] {
    let RecordingCounts {
        recorded,
        replayed,
        failed,
        kept,
    } = device.recordings();
    [recorded, replayed, failed, kept]
}

#[test]
fn the_second_run_is_recorded_and_replays_compute_what_plain_runs_do() {
    for dtype in [DType::F32, DType::BF16] {
        let Some(device) = emulator::device(dtype) else { return };
        device.run(|| {
            let network = Network::new();
            for (run, length) in [5, 5, 5, 9, 5, 9, 5, 9].into_iter().enumerate() {
                let [x, shift] = inputs(&device, run as u64, length);
                let got = network.repeated(&[&x, &shift]);
                assert_eq!(got, network.plain(&[&x, &shift]), "run {run} in {dtype:?}");
            }
            // Of each length the first is plain, the second recorded and replayed.
            assert_eq!(counts(&device), [2, 6, 0, 2]);
        });
    }
}

#[test]
fn what_a_replay_gave_is_not_overwritten_by_the_next() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    device.run(|| {
        let network = Network::new();
        let all: Vec<[Tensor; 2]> = (0..4).map(|seed| inputs(&device, seed, 5)).collect();
        let run = |[x, shift]: &[Tensor; 2]| {
            no_grad(|| {
                network
                    .repeatable
                    .run(&[x, shift], |x| Ok::<_, Infallible>(network.pass(&x[0], &x[1])))
            })
        };
        let outs: Vec<Tensor> = all
            .iter()
            .map(|inputs| run(inputs).unwrap_or_else(|never| match never {}))
            .collect();
        // Other work between the replays takes none of the recording's memory.
        let other: Vec<Tensor> = (0..20).map(|i| affine(&all[0][0], 1.0, i as f32)).collect();
        for (out, [x, shift]) in outs.iter().zip(&all) {
            assert_eq!(out.data(), network.plain(&[x, shift]));
        }
        assert_eq!(other.len(), 20);
        assert_eq!(counts(&device), [1, 3, 0, 1]);
    });
}

#[test]
fn a_new_value_of_a_parameter_drops_the_recording() {
    let Some(device) = emulator::device(DType::BF16) else {
        return;
    };
    device.run(|| {
        let network = Network::new();
        for run in 0..9 {
            if run == 4 {
                network.weight.update(|values| values.iter_mut().for_each(|v| *v = -*v));
            }
            let [x, shift] = inputs(&device, run, 5);
            assert_eq!(
                network.repeated(&[&x, &shift]),
                network.plain(&[&x, &shift]),
                "run {run}"
            );
        }
        // Run 1 records, 1 to 3 replay; 4 is plain, 5 records again.
        assert_eq!(counts(&device), [2, 3 + 4, 0, 1]);
    });
}

#[test]
fn a_recording_goes_with_its_owner() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    device.run(|| {
        let [x, shift] = inputs(&device, 1, 5);
        let used = |device: &Device| device.usage().in_use;
        let before = used(&device);
        let network = Network::new();
        for _ in 0..3 {
            network.repeated(&[&x, &shift]);
        }
        assert!(used(&device) > before);
        drop(network);
        // The next one that is looked for notices.
        let other = Network::new();
        other.repeated(&[&x, &shift]);
        assert_eq!(counts(&device)[3], 0);
        drop(other);
        assert_eq!(used(&device), before);
    });
}

/// Work and what a test calls it.
type Named<'a> = (&'a str, &'a dyn Fn(&Tensor) -> Tensor);

#[test]
fn copies_from_and_to_the_host_are_no_part_of_a_recording() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    device.run(|| {
        let [x, _] = inputs(&device, 1, 5);
        let host = random_tensor(3, &[1, 5, 8]);
        let cases: [Named; 2] = [
            ("upload", &|x| add(x, &host)),
            ("download", &|x| {
                let first = x.data()[0];
                affine(x, 1.0, first)
            }),
        ];
        for (name, work) in cases {
            let repeatable = Repeatable::default();
            let failed = device.recordings().failed;
            for run in 1..=6 {
                let input = device.copy(&affine(&x, 1.0, run as f32));
                let got = no_grad(|| repeatable.run(&[&input], |x| Ok::<_, Infallible>(work(&x[0]))));
                let got = got.unwrap_or_else(|never| match never {});
                assert_eq!(got.data(), no_grad(|| work(&input)).data(), "{name}, run {run}");
            }
            // Three attempts, then it is done plainly.
            assert_eq!(device.recordings().failed - failed, 3, "{name}");
        }
        assert_eq!(device.recordings().recorded, 0);
    });
}

#[test]
fn recordings_make_room_when_memory_is_short() {
    let Some(device) = emulator::device_with(DType::F32, 40 << 20) else {
        return;
    };
    device.run(|| {
        let repeatable = Repeatable::default();
        let x = device.copy(&random_tensor(1, &[1 << 20]));
        // Two arrays of 4 MiB inside, one of the input, one of the output.
        let work = |x: &Tensor| affine(&affine(x, 2.0, 1.0), 0.5, 0.25);
        let run = || no_grad(|| repeatable.run(&[&x], |x| Ok::<_, Infallible>(work(&x[0]))));
        for _ in 0..3 {
            let out = run().unwrap_or_else(|never| match never {});
            assert_eq!(out.data()[7], work(&x).data()[7]);
        }
        assert_eq!(device.recordings().kept, 1);
        let many: Result<Vec<Tensor>, DeviceError> =
            device::catch(|| (0..7).map(|i| affine(&x, 1.0, i as f32)).collect());
        assert_eq!(many.unwrap().len(), 7);
        assert_eq!(device.recordings().kept, 0, "the recording's memory was needed");
        let out = run().unwrap_or_else(|never| match never {});
        assert_eq!(out.data()[7], work(&x).data()[7]);
    });
}

#[test]
fn work_that_ends_early_leaves_no_recording_behind() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    device.run(|| {
        let network = Network::new();
        let [x, shift] = inputs(&device, 1, 5);
        network.repeated(&[&x, &shift]);
        let before = device.usage().in_use;
        let cancelled = no_grad(|| {
            network.repeatable.run(&[&x, &shift], |x| {
                network.pass(&x[0], &x[1]);
                Err("cancelled")
            })
        });
        assert_eq!(cancelled.unwrap_err(), "cancelled");
        assert_eq!(device.usage().in_use, before);
        assert_eq!(network.repeated(&[&x, &shift]), network.plain(&[&x, &shift]));
        assert_eq!(counts(&device), [1, 1, 0, 1]);
    });
}

#[test]
fn nothing_is_recorded_on_the_tape_or_on_the_cpu() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    let network = Network::new();
    network.weight.set_trainable(true);
    device.run(|| {
        let [x, shift] = inputs(&device, 1, 5);
        for _ in 0..3 {
            let run = network
                .repeatable
                .run(&[&x, &shift], |x| Ok::<_, Infallible>(network.pass(&x[0], &x[1])));
            let out = run.unwrap_or_else(|never| match never {});
            let gradients = weighted_mse(&out, &shift, &[1.0]).backward();
            assert!(gradients.param(&network.weight).is_some());
        }
    });
    assert_eq!(counts(&device), [0, 0, 0, 0]);
    assert_eq!(counts(&Device::cpu()), [0, 0, 0, 0]);
}

#[test]
fn other_threads_go_on_working_while_one_records() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    let network = Network::new();
    let [x, shift] = device.run(|| inputs(&device, 1, 5));
    let [y, other_shift] = device.run(|| inputs(&device, 2, 5));
    let want = device.run(|| network.plain(&[&y, &other_shift]));
    device.run(|| network.repeated(&[&x, &shift]));
    let in_the_middle = || {
        std::thread::scope(|scope| {
            let work = || device.run(|| network.repeated(&[&y, &other_shift]));
            assert_eq!(scope.spawn(work).join().unwrap(), want);
        });
    };
    device.run(|| {
        let run = || {
            network.repeatable.run(&[&x, &shift], |x| {
                let out = network.pass(&x[0], &x[1]);
                in_the_middle();
                Ok::<_, Infallible>(out)
            })
        };
        let out = no_grad(run).unwrap_or_else(|never| match never {});
        assert_eq!(out.data(), network.plain(&[&x, &shift]));
        assert_eq!(network.repeated(&[&y, &other_shift]), want);
    });
    assert_eq!(counts(&device), [1, 2, 0, 1]);
}
