use super::*;
use std::collections::BTreeMap;
use std::sync::OnceLock;

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models3d");
        World::open(&folder).unwrap()
    })
}

#[test]
fn a_mix_of_ones_own_has_its_kinds_in_their_parts() {
    let mut sources = Sources::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models3d"));
    sources.mix = BTreeMap::from([("close-up".to_owned(), 3.0), ("landscape".to_owned(), 1.0)]);
    let world = sources.open().unwrap();
    let places = (0..400).filter(|n| world.draw_kind(7, *n).0 == Kind::Landscape).count();
    assert!((70..130).contains(&places), "{places}");
    assert!((0..400).all(|n| matches!(world.draw_kind(7, n).0, Kind::Landscape | Kind::CloseUp)));
    for (name, part) in [("closeup", 1.0), ("close-up", -1.0), ("icon", 0.0)] {
        sources.mix = BTreeMap::from([(name.to_owned(), part)]);
        assert!(sources.open().is_err(), "{name} {part}");
    }
}

#[test]
fn a_sample_depends_on_seed_and_number_alone_not_on_the_thread() {
    let world = world();
    let here: Vec<Sample> = (0..4).map(|n| world.sample(5, n)).collect();
    let there: Vec<Sample> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4).rev().map(|n| scope.spawn(move || world.sample(5, n))).collect();
        handles.into_iter().rev().map(|h| h.join().unwrap()).collect()
    });
    assert_eq!(here, there);
    assert_ne!(here[0].rgb, world.sample(6, 0).rgb);
}

#[test]
fn every_kind_is_drawn_at_every_size() {
    let world = world();
    for kind in Kind::all() {
        for size in SIZES {
            let sample = world.sample_of(kind, 1, 2, size);
            assert_eq!(sample.rgb.len(), size.0 * size.1 * 3, "{}", kind.name());
            assert_eq!(sample.mask.len(), size.0 * size.1);
            assert!(!sample.caption.is_empty());
            let mean = sample.rgb.iter().map(|v| f64::from(*v)).sum::<f64>() / sample.rgb.len() as f64;
            assert!((2.0..253.0).contains(&mean), "{} at {size:?}: mean {mean}", kind.name());
        }
    }
}

/// Connected regions of one object's pixels that are larger than a speck.
fn regions(sample: &Sample) -> usize {
    let (w, h) = (sample.width, sample.height);
    let mut seen = vec![false; w * h];
    let mut count = 0;
    for start in 0..w * h {
        if seen[start] || sample.mask[start] == 0 {
            continue;
        }
        let object = sample.mask[start];
        let (mut stack, mut area) = (vec![start], 0);
        seen[start] = true;
        while let Some(at) = stack.pop() {
            area += 1;
            let (x, y) = (at % w, at / w);
            let mut visit = |next: usize| {
                if !seen[next] && sample.mask[next] == object {
                    seen[next] = true;
                    stack.push(next);
                }
            };
            if x > 0 {
                visit(at - 1);
            }
            if x + 1 < w {
                visit(at + 1);
            }
            if y > 0 {
                visit(at - w);
            }
            if y + 1 < h {
                visit(at + w);
            }
        }
        count += usize::from(area > 40);
    }
    count
}

#[test]
fn a_count_shows_as_many_things_as_its_caption_says() {
    let world = world();
    for (noun, number) in ["cat", "apple", "mug", "chair", "hamburger"].into_iter().zip(0..) {
        let sample = world.sample_noun(Kind::Count, noun, 3, number, SIZES[0]).unwrap();
        let thing = &sample.facts.things[0];
        let objects: std::collections::BTreeSet<u8> = sample.mask.iter().copied().filter(|o| *o > 0).collect();
        assert_eq!(objects.len(), thing.count, "{}", sample.caption);
        assert_eq!(thing.boxes.len(), thing.count);
        assert!(regions(&sample) >= thing.count, "{}", sample.caption);
        let says = ["one", "two", "three", "four"][thing.count - 1];
        let digit = thing.count.to_string();
        let lower = sample.caption.to_lowercase();
        assert!(lower.contains(says) || lower.contains(&digit), "{}", sample.caption);
    }
}

#[test]
fn relations_hold_between_the_centres() {
    let world = world();
    let mut checked = 0;
    for number in 0..60 {
        let sample = world.sample_of(Kind::Pair, 9, number, SIZES[(number % 5) as usize]);
        let [a, b] = sample.facts.things.as_slice() else {
            panic!("a pair has two things")
        };
        let ([ax, ay], [bx, by]) = (a.centres()[0], b.centres()[0]);
        match sample.facts.relation.unwrap() {
            Relation::LeftOf => assert!(ax < bx, "{}", sample.caption),
            Relation::RightOf => assert!(ax > bx, "{}", sample.caption),
            Relation::OnTopOf => assert!(ay < by, "{}", sample.caption),
            // What is nearer stands lower in the picture.
            Relation::InFrontOf => assert!(a.boxes[0][3] > b.boxes[0][3], "{}", sample.caption),
            Relation::Behind => assert!(a.boxes[0][3] < b.boxes[0][3], "{}", sample.caption),
            Relation::NextTo => assert!((ax - bx).abs() > 0.05, "{}", sample.caption),
        }
        for object in [1u8, 2] {
            let seen = sample.mask.iter().map(|o| u32::from(*o == object)).sum::<u32>();
            assert!(seen > 60, "{}: thing {object} is hidden", sample.caption);
        }
        checked += 1;
    }
    assert_eq!(checked, 60);
}

#[test]
fn a_single_thing_is_large_and_not_cut_off() {
    let world = world();
    for number in 0..80 {
        let kind = if number % 2 == 0 { Kind::Object } else { Kind::CloseUp };
        let sample = world.sample_of(kind, 4, number, SIZES[(number % 5) as usize]);
        let [l, t, r, b] = sample.facts.things[0].boxes[0];
        assert!(
            l > 0.0 && t > 0.0 && r < 1.0 && b < 1.0,
            "{}: {l} {t} {r} {b}",
            sample.caption
        );
        assert!((r - l).max(b - t) > 0.2, "{}: {l} {t} {r} {b}", sample.caption);
    }
}

#[test]
fn a_given_colour_is_said_and_seen() {
    let world = world();
    let mut seen = 0;
    for number in 0..120 {
        let sample = world.sample_noun(Kind::CloseUp, "mug", 8, number, SIZES[0]).unwrap();
        let thing = &sample.facts.things[0];
        let Some(colour) = thing.colour.filter(|_| thing.painted) else {
            continue;
        };
        let [r, g, b] = [0, 1, 2].map(|c| {
            let values: Vec<f32> = sample
                .mask
                .iter()
                .zip(sample.rgb.chunks_exact(3))
                .filter(|(m, _)| **m == 1)
                .map(|(_, p)| f32::from(p[c]))
                .collect();
            values.iter().sum::<f32>() / values.len() as f32
        });
        match colour.name() {
            "red" => assert!(r > g + 40.0 && r > b + 40.0, "{r} {g} {b}"),
            "green" => assert!(g > r + 20.0 && g > b + 20.0, "{r} {g} {b}"),
            "blue" => assert!(b > r + 40.0, "{r} {g} {b}"),
            "yellow" => assert!(r > b + 60.0 && g > b + 40.0, "{r} {g} {b}"),
            _ => continue,
        }
        seen += 1;
    }
    assert!(seen > 5, "{seen} painted mugs");
}

#[test]
fn every_everyday_noun_has_a_model_and_every_model_a_mesh() {
    let world = world();
    world.catalogue.check().unwrap();
    for noun in everyday() {
        assert!(world.vocabulary.models(noun).is_some(), "{noun}");
    }
    assert!(everyday().len() >= 200);
}

#[test]
fn plurals_are_english() {
    for (one, many) in [
        ("cat", "cats"),
        ("bus", "buses"),
        ("wolf", "wolves"),
        ("cherry", "cherries"),
        ("key", "keys"),
        ("sheep", "sheep"),
        ("goldfish", "goldfish"),
        ("loaf of bread", "loaves of bread"),
        ("box", "boxes"),
        ("wine glass", "wine glasses"),
        ("tomato", "tomatoes"),
    ] {
        assert_eq!(caption::plural(one), many);
    }
}

#[test]
fn the_synonyms_to_be_judged_by_are_in_no_caption_and_mean_everyday_nouns() {
    let world = world();
    let (nouns, asked) = (everyday(), synonyms());
    assert!(asked.iter().filter(|s| !s.never_seen).count() >= 80 && asked.iter().any(|s| s.never_seen));
    for synonym in asked {
        assert!(nouns.contains(&synonym.noun), "{}", synonym.noun);
        let word = synonym.word;
        let in_pack = |m: &super::catalogue::Model| m.noun == word || m.synonyms.iter().any(|s| s == word);
        assert!(!world.catalogue.models.iter().any(in_pack), "{word}");
    }
}

#[test]
fn captions_are_those_of_the_samples_each_once() {
    let world = world();
    let captions = world.captions(5, 40);
    assert_eq!(captions[0], world.sample_sized(5, 0, SMALLEST).caption);
    assert_eq!(captions.iter().collect::<HashSet<_>>().len(), captions.len());
    assert_eq!(captions, world.captions(5, 40));
}

#[test]
fn glossy_icons_stand_in_for_models_where_they_are_asked_for() {
    let sources = Sources {
        glossy_share: 0.5,
        ..Sources::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models3d"))
    };
    let error = sources.open().unwrap_err().to_string();
    assert!(error.contains("packages"), "{error}");
    let world = World::open(&sources.models).unwrap();
    assert!(world.with_glossy_share(1.5).is_err());
}

#[test]
fn a_world_of_few_nouns_shows_no_other() {
    let open = |nouns: &[&str]| {
        let nouns = nouns.iter().map(|noun| (*noun).to_owned()).collect();
        Sources {
            nouns,
            ..Sources::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models3d"))
        }
        .open()
    };
    let world = open(&["mug", "pumpkin"]).unwrap();
    assert_eq!(
        world.nouns().iter().map(|n| n.0).collect::<Vec<_>>(),
        ["mug", "pumpkin"]
    );
    for number in 0..40 {
        for thing in world.sample_sized(4, number, (64, 64)).facts.things {
            assert!(["mug", "pumpkin"].contains(&thing.noun.as_str()), "{}", thing.noun);
        }
    }
    let error = open(&["mug", "grandeur"]).unwrap_err().to_string();
    assert!(error.contains("grandeur"), "{error}");
}
