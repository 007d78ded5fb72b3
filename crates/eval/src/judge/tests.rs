use super::exam::questions;
use super::head::{CELLS, Head, Layout, WIDTH};
use super::labels::{Answers, Labels, Shown};
use super::readers::{Readers, counted};
use super::renders::{Example, ROUND, picture_of, sample};
use super::training::Lessons;
use super::{Asked, Judge, Seen};
use crate::features::{COARSE, COARSE_CHANNELS, FINE, FINE_CHANNELS, MOSAIC, Maps, POOLED, mosaic};
use half::f16;
use prima_checkpoint::RandomInit;
use prima_data::world::{Relation, World};
use prima_tensor::Philox;
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) fn world() -> World {
    World::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models3d")).unwrap()
}

/// A judge that has learnt nothing.
pub(crate) fn untrained(answers: Answers) -> Judge {
    let layout = Layout::of(&answers);
    let mut source = RandomInit::new(3);
    let head = Head::new(&mut source, &layout).unwrap();
    let readers = Readers::new(&mut source).unwrap();
    Judge {
        answers,
        layout,
        head,
        readers,
        params: source.into_params(),
        ceilings: Vec::new(),
    }
}

/// What a judge without faults would see.
fn seen(labels: &Labels, mosaic: Vec<u8>, judge: &Judge) -> Seen {
    const SURE: f32 = 12.0;
    let layout = &judge.layout;
    let mut whole = vec![0.0f32; layout.whole()];
    for (noun, share) in labels.things.iter().flat_map(|thing| &thing.names) {
        whole[layout.nouns.start + noun] += SURE * share;
    }
    for (range, answer) in [
        (&layout.places, labels.place),
        (&layout.times, labels.time),
        (&layout.weathers, labels.weather),
        (&layout.styles, labels.style),
    ] {
        if let Some(answer) = answer {
            whole[range.start + answer] = SURE;
        }
    }
    let mut cells = vec![0.0f32; CELLS * layout.cell()];
    for (row, cell) in cells.chunks_mut(layout.cell()).zip(&labels.cells) {
        let shown = (1..=labels.things.len() as u8)
            .contains(cell)
            .then(|| &labels.things[usize::from(*cell) - 1]);
        match shown {
            None => row[0] = SURE,
            Some(Shown { names, .. }) => {
                for (noun, share) in names {
                    row[noun + 1] = SURE * share;
                }
            }
        }
    }
    Seen::of(&cells, &whole, mosaic, layout)
}

fn labelled(world: &World, answers: &Answers, seed: u64, numbers: std::ops::Range<u64>) -> Vec<Labels> {
    let models: BTreeMap<&str, usize> = world.nouns().into_iter().collect();
    let one = |number| Labels::of(&sample(world, &answers.nouns, seed, number), answers, &models);
    numbers.map(one).collect()
}

/// Another answer than the one that is asked for.
fn wrong(asked: &Asked, judge: &Judge) -> Asked {
    let nouns = judge.answers.nouns.len();
    match asked.clone() {
        Asked::Noun(noun) => {
            let strangers = (0..nouns).filter(|n| !judge.answers.kinds[*n].contains(&noun));
            let related = |n: usize| {
                judge.answers.kinds[n]
                    .iter()
                    .any(|k| judge.answers.kinds[noun].contains(k))
            };
            Asked::Noun(strangers.into_iter().find(|n| !related(*n)).unwrap())
        }
        Asked::Colour { noun, colour } => Asked::Colour {
            noun,
            colour: (colour + 1) % 11,
        },
        Asked::Count(count) => Asked::Count(count + 1),
        Asked::Relation { first, second, .. } => Asked::Relation {
            first,
            second,
            relation: Relation::OnTopOf,
        },
        Asked::Place(place) => Asked::Place((place + 7) % judge.answers.places.len()),
        Asked::Time(time) => Asked::Time((time + 1) % 5),
        Asked::Weather(weather) => Asked::Weather((weather + 1) % 5),
        Asked::Style(style) => Asked::Style((style + 1) % 7),
    }
}

#[test]
fn right_and_wrong_answers_about_renders_are_told_apart() {
    let world = world();
    let judge = untrained(Answers::of(&world));
    let mut asked_of: BTreeMap<&str, usize> = BTreeMap::new();
    for labels in labelled(&world, &judge.answers, 5, 0..40) {
        let seen = seen(&labels, Vec::new(), &judge);
        for asked in questions(&labels) {
            // These are read by what is trained: see the next tests.
            if matches!(asked, Asked::Relation { .. } | Asked::Colour { .. } | Asked::Count(_)) {
                continue;
            }
            *asked_of.entry(asked.question()).or_default() += 1;
            assert_eq!(judge.rank(&seen, &asked), 0, "{asked:?} of {:?}", labels.things);
            assert!(judge.rank(&seen, &wrong(&asked, &judge)) > 0, "{asked:?}");
        }
    }
    for question in ["noun", "place", "time of day", "weather", "style"] {
        assert!(asked_of.contains_key(question), "{question}: {asked_of:?}");
    }
}

#[test]
fn how_pairs_lie_is_learnt_from_where_their_things_are() {
    let world = world();
    let judge = untrained(Answers::of(&world));
    let pairs = |seed, most| -> Vec<(Labels, Seen)> {
        let numbers = (0..most).filter(|n| (28..38).contains(&(n % ROUND)));
        let labels = numbers.flat_map(|n| labelled(&world, &judge.answers, seed, n..n + 1));
        labels
            .map(|labels| (labels.clone(), seen(&labels, Vec::new(), &judge)))
            .collect()
    };
    let learnt: Vec<_> = pairs(5, 1600)
        .iter()
        .flat_map(|(labels, seen)| judge.sides_of(seen, labels))
        .collect();
    judge.learn_sides(&learnt);
    let (mut right, mut of, mut alone) = (0, 0, 0);
    for (labels, seen) in pairs(6, 800) {
        for asked in questions(&labels)
            .iter()
            .filter(|a| matches!(a, Asked::Relation { .. }))
        {
            of += 1;
            right += usize::from(judge.rank(&seen, asked) == 0);
            // A thing that is not there lies nowhere.
            if let Asked::Relation { first, relation, .. } = asked {
                let missing = (0..200).find(|n| labels.things.iter().all(|t| t.names.iter().all(|(own, _)| own != n)));
                let asked = Asked::Relation {
                    first: *first,
                    second: missing.unwrap(),
                    relation: *relation,
                };
                alone += usize::from(judge.rank(&seen, &asked) == 0);
            }
        }
    }
    assert!(of > 50, "{of}");
    assert!(right * 100 > of * 75, "{right} of {of}");
    assert!(alone * 100 < of * 5, "{alone} of {of} with a thing that is not there");
}

/// Renders of these slots of a round, and what a judge without faults would see in them.
fn renders(world: &World, judge: &Judge, seed: u64, rounds: u64, slots: std::ops::Range<u64>) -> Vec<(Labels, Seen)> {
    let models: BTreeMap<&str, usize> = world.nouns().into_iter().collect();
    let numbers = (0..ROUND * rounds).filter(|n| slots.contains(&(n % ROUND)));
    numbers
        .map(|number| {
            let sample = sample(world, &judge.answers.nouns, seed, number);
            let labels = Labels::of(&sample, &judge.answers, &models);
            let mut seen = seen(&labels, mosaic(&picture_of(&sample)), judge);
            seen.tokens = vec![0.0; CELLS * WIDTH];
            (labels, seen)
        })
        .collect()
}

#[test]
fn colours_are_learnt_from_the_pixels_where_a_thing_is_seen() {
    let world = world();
    let judge = untrained(Answers::of(&world));
    let learnt: Vec<_> = renders(&world, &judge, 5, 60, 48..56)
        .iter()
        .flat_map(|(labels, seen)| judge.colours_of(seen, labels))
        .collect();
    judge.learn_colours(&learnt);
    let (mut right, mut of) = (0, 0);
    for (labels, seen) in renders(&world, &judge, 6, 20, 48..56) {
        for asked in questions(&labels).iter().filter(|a| matches!(a, Asked::Colour { .. })) {
            of += 1;
            right += usize::from(judge.rank(&seen, asked) == 0);
        }
    }
    assert!(of > 50, "{of}");
    assert!(right * 100 > of * 75, "{right} of {of}");
}

#[test]
fn counts_are_learnt_from_where_things_are_seen() {
    let world = world();
    let judge = untrained(Answers::of(&world));
    let learnt: Vec<_> = renders(&world, &judge, 5, 60, 16..28)
        .iter()
        .filter_map(|(labels, seen)| Some((counted(&seen.things(), &seen.tokens, false), labels.count?)))
        .collect();
    judge.learn_counts(&learnt);
    let (mut right, mut of) = (0, 0);
    for (labels, mut seen) in renders(&world, &judge, 6, 15, 18..28) {
        seen.counts = judge.counts(&seen);
        for asked in questions(&labels).iter().filter(|a| matches!(a, Asked::Count(_))) {
            of += 1;
            right += usize::from(judge.rank(&seen, asked) == 0);
        }
    }
    assert!(of > 50, "{of}");
    assert!(right * 100 > of * 60, "{right} of {of}");
}

/// Maps in which the noun, the place and the hour can be read off one channel each, under noise.
fn toy(number: u64) -> Example {
    let (noun, place, time) = ((number % 3) as usize, (number % 2) as usize, (number / 3 % 5) as usize);
    let noise = |purpose: u32, len: usize| {
        let stream = Philox {
            seed: number,
            image: 0,
            purpose,
            step: 0,
        };
        stream.normal(len)
    };
    let mut fine = noise(1, CELLS * FINE_CHANNELS);
    let mut coarse = noise(2, COARSE * COARSE * COARSE_CHANNELS);
    for place_in in coarse.chunks_mut(COARSE_CHANNELS) {
        place_in[3 + place] += 5.0;
        place_in[9 + time] += 5.0;
    }
    let mut cells = vec![0u8; CELLS];
    for cell in 0..CELLS {
        if (4..9).contains(&(cell % FINE)) && (6..11).contains(&(cell / FINE)) {
            cells[cell] = 1;
            fine[cell * FINE_CHANNELS + noun] += 8.0;
        }
    }
    let halves = |values: Vec<f32>| values.into_iter().map(f16::from_f32).collect();
    Example {
        maps: Maps {
            fine: halves(fine),
            coarse: halves(coarse),
            pooled: halves(noise(3, POOLED)),
            mosaic: vec![128; MOSAIC * MOSAIC * 3],
        },
        labels: Labels {
            things: vec![Shown {
                noun: Some(noun),
                names: vec![(noun, 1.0)],
                colour: None,
                painted: false,
                count: 1,
                centre: [6.5 / 16.0, 8.5 / 16.0],
            }],
            relation: None,
            side: None,
            count: None,
            place: Some(place),
            time: Some(time),
            weather: None,
            style: Some(0),
            cells,
        },
    }
}

#[test]
fn the_head_learns_what_can_be_read_off_the_maps_and_says_so_of_held_out_ones() {
    let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
    let lessons = Lessons {
        answers: Answers {
            nouns: words(&["cat", "dog", "car"]),
            places: words(&["beach", "forest"]),
            kinds: vec![vec![0], vec![1], vec![2]],
        },
        learnt: (0..512).map(toy).collect(),
        held_out: (1000..1030).map(toy).collect(),
    };
    let (judge, wrong) = Judge::learn(&lessons, &mut |_, _| {}).unwrap();
    for question in ["noun", "place", "time of day", "centre"] {
        let ceiling = judge.ceilings.iter().find(|c| c.question == question).unwrap();
        assert_eq!(ceiling.score.pictures, 30);
        assert!(ceiling.score.percent() > 90.0, "{ceiling:?}");
    }
    assert!(wrong.iter().all(|(number, _)| *number < 30));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("judge.safetensors");
    judge.save(&path).unwrap();
    let again = Judge::open(&path).unwrap();
    assert_eq!(again.answers, judge.answers);
    assert_eq!(again.ceilings, judge.ceilings);
    let [before, after] = [&judge, &again].map(|j| j.see(&lessons.held_out[0].maps).nouns);
    assert_eq!(before, after);
}
