//! What the marks of a prompt do to a picture, where diffusers has nothing to compare with (docs/prompts.md).

mod common;

use common::{goldens, paint};
use prima_pipeline::{LoadOptions, ModelSource, Picture, Pipeline, PromptSyntax, Region, Request, ScheduleOptions};

fn tiny() -> Pipeline {
    let source = ModelSource::open(goldens().join("tiny-sdxl")).unwrap();
    Pipeline::load(&source, &LoadOptions::default()).unwrap()
}

fn request(prompt: &str, steps: usize, guidance_scale: f64) -> Request {
    Request {
        prompt: prompt.to_owned(),
        seed: 3,
        guidance_scale: Some(guidance_scale),
        schedule: ScheduleOptions::steps(steps),
        ..Request::default()
    }
}

/// The largest difference.
fn apart(a: &Picture, b: &Picture) -> u8 {
    a.rgb.iter().zip(&b.rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn and_joins_answers_by_their_weights() {
    let pipeline = tiny();
    let picture = |prompt: &str, scale| paint(&pipeline, &request(prompt, 3, scale)).0.pictures.remove(0);
    for scale in [0.0, 5.0] {
        let cat = picture("a cat", scale);
        let halves = picture("a cat:0.5 AND a cat:0.5", scale);
        assert!(apart(&cat, &halves) <= 1, "two halves are a whole at guidance {scale}");
        assert!(apart(&cat, &picture("a cat AND a dog", scale)) > 3);
    }
    // Without guidance two prompts of weight 1 go against the negative one once, with it as often as guidance says.
    let with = |negative: &str| {
        let request = Request {
            negative_prompt: Some(negative.to_owned()),
            ..request("a cat AND a dog", 2, 0.0)
        };
        paint(&pipeline, &request).0
    };
    let (plain, other) = (with("a pear"), with("a house on the hill"));
    assert!(apart(&plain.pictures[0], &other.pictures[0]) > 1);
    assert!(!plain.warnings.join("\n").contains("no effect"), "{:?}", plain.warnings);
}

#[test]
fn a_region_is_painted_from_its_own_prompt() {
    let pipeline = tiny();
    let with = |prompt: &str, scale, regions: Vec<Region>| {
        let request = Request {
            regions,
            ..request(prompt, 3, scale)
        };
        paint(&pipeline, &request).0.pictures.remove(0)
    };
    let region = |prompt: &str, area, share| Region {
        prompt: prompt.to_owned(),
        area,
        share,
    };
    let whole = [0.0, 0.0, 1.0, 1.0];
    for scale in [0.0, 5.0] {
        let (cat, dog) = (with("a cat", scale, vec![]), with("a dog on a hill", scale, vec![]));
        let of = |regions| with("a cat", scale, regions);
        assert!(apart(&of(vec![region("a dog on a hill", whole, 1.0)]), &dog) <= 1);
        assert!(apart(&of(vec![region("a dog on a hill", whole, 0.0)]), &cat) <= 1);
        let left = of(vec![region("a dog on a hill", [0.0, 0.0, 0.5, 1.0], 1.0)]);
        assert!(apart(&left, &cat) > 3 && apart(&left, &dog) > 3);
        // The left part is nearer to the dog's picture than to the cat's.
        let distance = |other: &Picture| -> u64 {
            let row = left.width * 3;
            let rows = left.rgb.chunks(row).zip(other.rgb.chunks(row));
            rows.flat_map(|(a, b)| a[..row / 4].iter().zip(b))
                .map(|(a, b)| u64::from(a.abs_diff(*b)))
                .sum()
        };
        assert!(distance(&dog) < distance(&cat), "at guidance {scale}");
    }
}

#[test]
fn regions_are_said_in_the_file_and_refused_beside_and() {
    let pipeline = tiny();
    let region: Region = "0,0,0.5,1:a dog".parse().unwrap();
    let of = |prompt: &str, count| Request {
        regions: vec![region.clone(); count],
        ..request(prompt, 2, 0.0)
    };
    let one = of("a cat", 1);
    let text = paint(&pipeline, &one).0.parameters(&one, "tiny", 0).to_text();
    assert!(text.contains("Regions: "), "{text}");
    let refused = |request: &Request| {
        let painted = pipeline.paint(request, &mut |_| std::ops::ControlFlow::Continue(()));
        painted.unwrap_err().to_string()
    };
    assert!(refused(&of("a cat AND a pear", 1)).contains("AND"));
    assert!(refused(&of("a cat", 9)).contains("at most 8"));
}

#[test]
fn an_edited_prompt_is_its_first_text_and_then_its_second() {
    let pipeline = tiny();
    let trajectory = |prompt: &str| paint(&pipeline, &request(prompt, 8, 0.0)).1;
    let (cat, edited) = (trajectory("a cat"), trajectory("a [cat:dog:0.5]"));
    let step = cat.len() / 8;
    assert_eq!(
        cat[..5 * step],
        edited[..5 * step],
        "evaluations 0 to 4, as in the web UI"
    );
    assert_ne!(cat[5 * step..6 * step], edited[5 * step..6 * step]);
    let alternating = trajectory("a [cat|dog]");
    assert_eq!(cat[..2 * step], alternating[..2 * step]);
    assert_ne!(cat[2 * step..3 * step], alternating[2 * step..3 * step]);
}

#[test]
fn prompts_of_different_length_guide_each_other() {
    let pipeline = tiny();
    let long = "a house on the hill, ".repeat(30);
    let short = paint(&pipeline, &request("a cat", 2, 4.0)).0.pictures.remove(0);
    let response = paint(
        &pipeline,
        &Request {
            negative_prompt: Some(long.clone()),
            ..request("a cat", 2, 4.0)
        },
    )
    .0;
    assert_ne!(response.pictures[0], short);
    assert!(
        !response.warnings.join("\n").contains("was not read"),
        "{:?}",
        response.warnings
    );
    // diffusers' way is one flag away, and says what it cuts off.
    let plain = Request {
        prompt_syntax: PromptSyntax::Plain,
        ..request(&long, 1, 0.0)
    };
    let said = paint(&pipeline, &plain).0.warnings.join("\n");
    assert!(said.contains("longer than 77 tokens"), "{said}");
}

#[test]
fn a_prompt_without_end_is_cut_and_one_of_too_many_parts_is_refused() {
    let pipeline = tiny();
    let endless = paint(&pipeline, &request(&"a cat BREAK ".repeat(100), 1, 0.0)).0;
    let said = endless.warnings.join("\n");
    assert!(
        said.contains("longer than 32 chunks of 75 tokens") && said.contains("BREAK"),
        "{said}"
    );
    let many = request(&["a cat"; 9].join(" AND "), 1, 0.0);
    let error = pipeline.paint(&many, &mut |_| std::ops::ControlFlow::Continue(()));
    let error = error.unwrap_err();
    assert!(
        error.is_usage() && error.to_string().contains("AND joins at most 8"),
        "{error}"
    );
}

#[test]
fn marks_that_cost_or_change_something_are_said() {
    let pipeline = tiny();
    let said = |prompt: &str| paint(&pipeline, &request(prompt, 1, 0.0)).0.warnings.join("\n");
    assert!(said("a cat BREAK a dog").contains("BREAK begins another 75 tokens"));
    assert!(said("a cat AND a dog").contains("AND joins 2 prompts"));
    let second = Request {
        negative_prompt_2: Some("pears".to_owned()),
        ..request("a cat", 1, 4.0)
    };
    let said = paint(&pipeline, &second).0.warnings.join("\n");
    assert!(
        said.contains("negative_prompt_2 has no effect without a negative prompt"),
        "{said}"
    );
}

#[test]
fn any_size_is_painted_in_whole_blocks_and_cut() {
    let pipeline = tiny();
    let odd = Request {
        width: Some(101),
        height: Some(60),
        ..request("a cat", 1, 0.0)
    };
    let response = paint(&pipeline, &odd).0;
    assert_eq!((response.pictures[0].width, response.pictures[0].height), (101, 60));
    let said = response.warnings.join("\n");
    assert!(said.contains("that of 101x60 is made from one of 104x64"), "{said}");
}

#[test]
fn what_lies_outside_of_the_schedule_is_refused() {
    let pipeline = tiny();
    let refused = |request: &Request| pipeline.check(request).unwrap_err().to_string();
    let start = Request {
        denoising_start: Some(0.5),
        ..request("a cat", 4, 0.0)
    };
    assert!(refused(&start).contains("goes on from a picture"));
    let nothing = Request {
        denoising_end: Some(0.001),
        ..request("a cat", 4, 0.0)
    };
    assert!(refused(&nothing).contains("none lies between denoising_start 0 and denoising_end 0.001"));
    let beyond = Request {
        denoising_end: Some(1.5),
        ..request("a cat", 4, 0.0)
    };
    assert!(refused(&beyond).contains("use 0 to 1"));
}
