use super::{ask, prompts, sketch, variety};
use crate::judge::tests::{untrained, world};
use crate::judge::{Answers, picture_of};
use crate::{Error, FeatureNet, Order};
use prima_data::world::Kind;
use prima_picture::Picture;
use std::collections::BTreeMap;

#[test]
fn every_question_has_its_prompts() {
    let world = world();
    let asked = prompts(&world.catalogue, &Answers::of(&world));
    let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
    for (row, _) in asked.iter().flat_map(|prompt| &prompt.asked) {
        *rows.entry(row).or_default() += 1;
    }
    let of = |row: &str| rows.get(row).copied().unwrap_or(0);
    assert_eq!(of("single objects"), 200);
    assert_eq!(of("colours"), 15 * 11);
    assert_eq!(of("relations"), 60);
    assert_eq!(of("styles"), 60);
    assert!(of("counts two and three") >= 60, "{rows:?}");
    assert!(of("places") > 100 && of("times of day") > 80, "{rows:?}");
    assert!(of("unseen synonyms") >= 100, "{rows:?}");
    assert_eq!(rows.keys().filter(|row| row.starts_with("names in ")).count(), 7);
    let text = |row: &str| &asked.iter().find(|p| p.asked[0].0 == row).unwrap().text;
    assert_eq!(text("colours").split(' ').count(), 3, "{}", text("colours"));
    assert!(text("counts two and three").starts_with("two "));
}

#[test]
fn each_seed_of_a_single_object_is_a_picture_and_a_row_names_its_ceiling() {
    let (world, net) = (world(), FeatureNet::random().unwrap());
    let judge = untrained(Answers::of(&world));
    let all = prompts(&world.catalogue, judge.answers());
    let chosen: Vec<_> = ["a cat", "a mountain lake at sunset", "Katze"]
        .map(|text| all.iter().find(|p| p.text == text).unwrap().clone())
        .to_vec();
    let mut painted = Vec::new();
    let mut paint = |order: &Order| -> Result<Picture, Error> {
        painted.push((order.prompt.to_owned(), order.seed));
        Ok(picture_of(&world.sample_of(Kind::CloseUp, 1, order.seed, (64, 64))))
    };
    let answered = ask(&judge, &net, &chosen, 2, &mut paint, &mut |_, _| {}).unwrap();
    let rows: Vec<(&str, usize)> = answered
        .rows
        .iter()
        .map(|r| (r.question.as_str(), r.pictures))
        .collect();
    assert_eq!(
        rows,
        [
            ("single objects", 2),
            ("places", 1),
            ("times of day", 1),
            ("names in de", 1)
        ]
    );
    assert_eq!(painted.len(), 4);
    assert_eq!(answered.judged.len(), 2, "the first seeds of English prompts");
    assert!(answered.rows[3].of_english.is_some());
}

#[test]
fn a_model_that_repeats_one_picture_has_no_variety_and_one_that_paints_renders_has_the_data_s() {
    let (world, net) = (world(), FeatureNet::random().unwrap());
    let same = picture_of(&world.sample_of(Kind::CloseUp, 1, 1, (64, 64)));
    let mut repeats = |_: &Order| -> Result<Picture, Error> { Ok(same.clone()) };
    let none = variety(&net, &world, 3, &mut repeats, &mut |_, _| {}).unwrap();
    assert_eq!((none.prompts, none.pixels), (3, 0.0));
    let mut renders = |order: &Order| -> Result<Picture, Error> {
        let sample = world
            .sample_noun(Kind::Object, "car", 9, order.seed, (256, 256))
            .unwrap();
        Ok(picture_of(&sample))
    };
    let some = variety(&net, &world, 3, &mut renders, &mut |_, _| {}).unwrap();
    assert!(some.pixels_percent() > 60.0, "{some:?}");
}

#[test]
fn a_sketch_that_comes_back_as_it_was_is_kept_only_if_the_judge_sees_it_there() {
    let (world, net) = (world(), FeatureNet::random().unwrap());
    let judge = untrained(Answers::of(&world));
    let mut sketches = Vec::new();
    let mut paint = |order: &Order| -> Result<Picture, Error> {
        let drawn = order.sketch.unwrap().clone();
        sketches.push((order.prompt.to_owned(), drawn.clone()));
        Ok(drawn)
    };
    let score = sketch(&judge, &net, &world.catalogue, &mut paint, &mut |_, _| {}).unwrap();
    assert_eq!(score.pictures, 50);
    assert_eq!(sketches.len(), 50);
    let places: std::collections::HashSet<&Vec<u8>> = sketches.iter().map(|(_, p)| &p.rgb).collect();
    assert_eq!(places.len(), 50, "each case has a place of its own");
}
