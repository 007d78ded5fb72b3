//! Pictures on the way from one prompt and one seed to others.

mod common;

use common::{goldens, paint};
use prima_pipeline::{Blend, LoadOptions, ModelSource, Picture, Pipeline, Request, Rng, ScheduleOptions};

fn tiny() -> Pipeline {
    let source = ModelSource::open(goldens().join("tiny-sdxl")).unwrap();
    Pipeline::load(&source, &LoadOptions::default()).unwrap()
}

fn request(prompt: &str, seed: u64) -> Request {
    Request {
        prompt: prompt.to_owned(),
        seed,
        guidance_scale: Some(0.0),
        schedule: ScheduleOptions::steps(2),
        ..Request::default()
    }
}

fn blended(prompt: &str, seed: u64, blend: Blend) -> Request {
    Request {
        blend: Some(blend),
        ..request(prompt, seed)
    }
}

fn picture(pipeline: &Pipeline, request: &Request) -> Picture {
    paint(pipeline, request).0.pictures.remove(0)
}

fn apart(a: &Picture, b: &Picture) -> u8 {
    a.rgb.iter().zip(&b.rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn the_way_begins_and_ends_at_the_two_pictures() {
    let pipeline = tiny();
    let (cat, dog) = (request("a cat", 3), request("a dog on a hill", 3));
    let (from, to) = (picture(&pipeline, &cat), picture(&pipeline, &dog));
    let at = |share| {
        let prompt = Some(dog.prompt.clone());
        let blend = Blend {
            share,
            prompt,
            seed: None,
        };
        picture(&pipeline, &blended("a cat", 3, blend))
    };
    assert_eq!(apart(&at(0.0), &from), 0);
    assert!(apart(&at(1.0), &to) <= 1);
    let middle = at(0.5);
    assert!(apart(&middle, &from) > 1 && apart(&middle, &to) > 1);
    for rng in [Rng::Philox, Rng::TorchCpu] {
        let of = |seed, blend| {
            let request = Request {
                rng,
                blend,
                ..request("a cat", seed)
            };
            picture(&pipeline, &request)
        };
        let at = |share| {
            let seed = Some(9);
            let blend = Blend {
                share,
                prompt: None,
                seed,
            };
            of(3, Some(blend))
        };
        let (from, to) = (of(3, None), of(9, None));
        assert!(apart(&at(0.0), &from) <= 1 && apart(&at(1.0), &to) <= 1);
        assert!(apart(&at(0.5), &from) > 3 && apart(&at(0.5), &to) > 3);
    }
}

#[test]
fn prompts_of_any_length_blend_and_what_cannot_be_is_refused() {
    let pipeline = tiny();
    let long = "a house on the hill, ".repeat(30);
    for (from, to) in [
        ("a cat", long.as_str()),
        (long.as_str(), "a cat"),
        ("a [cat:dog:0.5]", "a pear"),
    ] {
        let blend = |share| Blend {
            share,
            prompt: Some(to.to_owned()),
            seed: None,
        };
        let at = |share| picture(&pipeline, &blended(from, 3, blend(share)));
        assert!(apart(&at(0.5), &at(0.0)) > 1, "{from} to {to}");
    }
    let refused = |prompt: &str, share| {
        let blend = Blend {
            share,
            prompt: Some("a pear".to_owned()),
            seed: None,
        };
        let painted = pipeline.paint(&blended(prompt, 3, blend), &mut |_| std::ops::ControlFlow::Continue(()));
        painted.unwrap_err().to_string()
    };
    assert!(refused("a cat", 1.5).contains("use 0 to 1"));
    assert!(refused("a cat AND a dog", 0.5).contains("AND"));
}

#[test]
fn a_picture_says_how_it_was_blended() {
    let pipeline = tiny();
    let blend = Blend {
        share: 0.25,
        prompt: Some("a pear".to_owned()),
        seed: Some(9),
    };
    let request = blended("a cat", 3, blend);
    let response = paint(&pipeline, &request).0;
    let text = response.parameters(&request, "tiny", 0).to_text();
    for part in [
        "Variation seed: 9",
        "Variation seed strength: 0.25",
        "Blend prompt: a pear",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
