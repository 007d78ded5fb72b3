//! What the data must be like. The end-to-end tests build from small packages made here: each noun is a coloured shape.

use super::*;
use crate::bpe::{self, Bpe, END_OF_TEXT, START_OF_TEXT, WordCounts, WordSplitter};
use crate::caption::{self, Said};
use crate::colour::{self, Colour, Palette};
use crate::dataset::NounRecord;
use crate::languages;
use crate::packages::slug;
use crate::random::Random;
use crate::render::SPRITE_BYTES;
use flate2::{Compression, write::GzEncoder};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::OnceLock;
use tokenizers::Model;
use tokenizers::models::bpe::BPE;

/// Writes a .tgz as `npm pack` does.
fn package(folder: &Path, name: &str, files: &[(String, Vec<u8>)]) {
    let file = std::fs::File::create(folder.join(format!("{name}-1.0.0.tgz"))).unwrap();
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, format!("package/{path}"), bytes.as_slice())
            .unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap();
}

fn labels() -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for noun in core_nouns() {
        for label in noun.labels.into_iter().chain([noun.words]) {
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
    }
    labels
}

fn hexcode(i: usize) -> String {
    format!("{:X}", 0x1F000 + i)
}

/// A red rectangle off centre, on a transparent background.
const BODY: &str = r##"<rect x="2" y="4" width="6" height="8" fill="#d02020"/>"##;

fn packages(folder: &Path) {
    let labels = labels();
    let entries = |suffix: &str| -> Vec<u8> {
        let list: Vec<serde_json::Value> = labels
            .iter()
            .enumerate()
            .map(|(i, l)| serde_json::json!({"label": format!("{l}{suffix}"), "hexcode": hexcode(i), "group": if l == "baby" { 1 } else { 3 }, "tags": ["thing"]}))
            .collect();
        serde_json::to_vec(&list).unwrap()
    };
    let mut files: Vec<(String, Vec<u8>)> = LANGUAGES[1..]
        .iter()
        .map(|l| (format!("{l}/data.json"), entries(&format!(" {l}"))))
        .collect();
    files.push(("en/data.json".to_owned(), entries("")));
    package(folder, "emojibase-data", &files);
    let icons: HashMap<String, serde_json::Value> = labels
        .iter()
        .map(|l| (slug(l), serde_json::json!({ "body": BODY })))
        .collect();
    let icons = serde_json::to_vec(&serde_json::json!({"icons": icons, "width": 16, "height": 16})).unwrap();
    for set in ["fluent-emoji-flat", "noto", "noto-v1", "twemoji", "emojione"] {
        package(
            folder,
            &format!("iconify-json-{set}"),
            &[("icons.json".to_owned(), icons.clone())],
        );
    }
    let mut webp = std::io::Cursor::new(Vec::new());
    let mut dot = image::RgbaImage::new(16, 16);
    (4..12).for_each(|x| (4..12).for_each(|y| dot.put_pixel(x, y, image::Rgba([20, 200, 20, 255]))));
    dot.write_to(&mut webp, image::ImageFormat::WebP).unwrap();
    let webp = webp.into_inner();
    let dots: Vec<(String, Vec<u8>)> = (0..labels.len())
        .map(|i| (format!("assets/{}.webp", hexcode(i).to_lowercase()), webp.clone()))
        .collect();
    package(folder, "lobehub-fluent-emoji-3d", &dots);
}

/// The data set that the read-only tests share.
fn built() -> &'static (tempfile::TempDir, Manifest) {
    static BUILT: OnceLock<(tempfile::TempDir, Manifest)> = OnceLock::new();
    BUILT.get_or_init(build_new)
}

fn build_new() -> (tempfile::TempDir, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    packages(folder.path());
    let options = BuildOptions {
        packages: folder.path().to_owned(),
        photos: None,
        pixel_art: None,
        out: folder.path().join("out"),
        profile: Profile::Core,
        vocab_size: 1500,
        seed: 3,
    };
    let manifest = build(&options, &|_, _| {}).unwrap();
    (folder, manifest)
}

#[test]
fn a_built_data_set_opens_with_what_its_manifest_says() {
    let (folder, manifest) = built();
    let nouns = core_nouns().len();
    assert_eq!(
        (manifest.nouns, manifest.sprites, manifest.held_back_sprites),
        (nouns, nouns * 6, nouns)
    );
    let composer = Composer::open(&folder.path().join("out"), 1).unwrap();
    assert_eq!(&composer.dataset().manifest, manifest);
    assert_eq!(composer.evaluation_nouns().len(), EVALUATION_NOUNS);
    assert_eq!(composer.prompt(composer.evaluation_nouns()[0]), "a dog");
    assert!(folder.path().join("out/NOTICE").exists());
}

#[test]
fn sprites_are_centred_and_fitted_with_the_margin() {
    let (folder, _) = built();
    let data = Dataset::open(&folder.path().join("out")).unwrap();
    let id = data.sprites.iter().position(|s| s.set == "noto").unwrap();
    let pixels = data.pixels(id).unwrap();
    assert_eq!(pixels.len(), SPRITE_BYTES);
    let alpha = |x: usize, y: usize| pixels[(y * 128 + x) * 4 + 3];
    // 6 x 8 units become 84 x 112 pixels: rows 8 to 120, columns 22 to 106.
    assert_eq!(
        (alpha(64, 6), alpha(64, 10), alpha(64, 117), alpha(64, 122)),
        (0, 255, 255, 0)
    );
    assert_eq!(
        (alpha(18, 64), alpha(26, 64), alpha(101, 64), alpha(110, 64)),
        (0, 255, 255, 0)
    );
    assert_eq!(&pixels[(64 * 128 + 64) * 4..][..3], &[0xd0, 0x20, 0x20]);
    assert_eq!(data.sprites[id].main_colour.as_deref(), Some("red"));
}

#[test]
fn samples_depend_on_seed_and_index_alone() {
    let (folder, _) = built();
    let out = folder.path().join("out");
    let (first, again, other) = (
        Composer::open(&out, 5).unwrap(),
        Composer::open(&out, 5).unwrap(),
        Composer::open(&out, 6).unwrap(),
    );
    let forwards: Vec<Sample> = (0..40).map(|i| first.sample(i).unwrap()).collect();
    let backwards: Vec<Sample> = (0..40).rev().map(|i| again.sample(i).unwrap()).collect();
    assert!(forwards.iter().eq(backwards.iter().rev()));
    assert!((0..40).any(|i| other.sample(i).unwrap() != forwards[i as usize]));
    assert!(forwards.iter().all(|s| s.rgb.len() == 128 * 128 * 3));
}

#[test]
fn training_never_sees_a_held_back_sprite() {
    let (folder, _) = built();
    let composer = Composer::open(&folder.path().join("out"), 5).unwrap();
    let mut random = Random::new(&[1]);
    assert!((0..5000).all(|_| !composer.dataset().sprites[composer.draw_sprite(&mut random)].held_back));
    assert!((0..composer.dataset().nouns.len()).all(|noun| composer.held_back_len(noun) == 1));
}

#[test]
fn a_favoured_style_is_shown_where_the_noun_has_it() {
    let (folder, _) = built();
    let dataset = Dataset::open(&folder.path().join("out")).unwrap();
    let options = ComposerOptions {
        favoured_style: Some(("flat".to_owned(), 1.0)),
        ..ComposerOptions::for_profile(Profile::Core, 5)
    };
    let composer = Composer::new(dataset, options).unwrap();
    let sprites = &composer.dataset().sprites;
    let mut random = Random::new(&[1]);
    for _ in 0..2000 {
        let shown = &sprites[composer.draw_sprite(&mut random)];
        let has_it = |s: &SpriteRecord| s.noun == shown.noun && s.style == "flat" && !s.held_back;
        assert!(shown.style == "flat" || !sprites.iter().any(has_it));
    }
}

#[test]
fn captions_of_other_languages_may_have_an_article() {
    let noun = NounRecord {
        phrase: "a dog".to_owned(),
        core_rank: None,
        tags: vec![],
        names: [("de", "Hund"), ("zh", "狗")]
            .map(|(l, n)| (l.to_owned(), n.to_owned()))
            .into(),
    };
    let mut random = Random::new(&[2]);
    let mut captions = |code| -> BTreeSet<String> {
        (0..200)
            .filter_map(|_| languages::in_language(&noun, code, Said::default(), &mut random))
            .collect()
    };
    let german = [
        "Hund",
        "das Hund",
        "der Hund",
        "die Hund",
        "ein Hund",
        "eine Hund",
        "einen Hund",
    ];
    assert!(captions("de").iter().eq(german));
    assert!(captions("zh").iter().eq(["一个狗", "一只狗", "狗"]));
    assert_eq!(captions("fr").len(), 0);
}

#[test]
fn one_caption_in_ten_is_empty_and_three_in_four_are_english() {
    let (folder, _) = built();
    let composer = Composer::open(&folder.path().join("out"), 5).unwrap();
    let captions: Vec<String> = (0..4000).map(|i| composer.sample(i).unwrap().caption).collect();
    let empty = captions.iter().filter(|c| c.is_empty()).count() as f32 / 4000.0;
    // The names of the other languages end in their code here.
    let foreign = captions
        .iter()
        .filter(|c| {
            LANGUAGES[1..]
                .iter()
                .any(|l| c.split([',', '、', '，']).next().unwrap().ends_with(&format!(" {l}")))
        })
        .count() as f32
        / 4000.0;
    assert!((empty - 0.1).abs() < 0.02, "{empty}");
    assert!((foreign - 0.9 * 0.25).abs() < 0.03, "{foreign}");
}

#[test]
fn an_unnamed_background_is_white_and_a_named_one_has_its_colour() {
    let (folder, _) = built();
    let composer = Composer::open(&folder.path().join("out"), 9).unwrap();
    let mut coloured = 0;
    for i in 0..400 {
        let sample = composer.sample(i).unwrap();
        if sample.caption.is_empty() || !sample.caption.is_ascii() {
            continue;
        }
        let corner: [u8; 3] = sample.rgb[..3].try_into().unwrap();
        let named = Colour::BACKGROUNDS
            .into_iter()
            .filter(|c| sample.caption.contains(&format!("{} background", c.name())))
            .max_by_key(|c| c.name().len());
        if let Some(colour) = named {
            assert_eq!(corner, colour.background(), "{}", sample.caption);
            coloured += 1;
        } else if !["Hintergrund", "fondo", "fond ", "sfondo", "fundo"]
            .iter()
            .any(|w| sample.caption.contains(w))
        {
            assert_eq!(corner, [255; 3], "{}", sample.caption);
        }
    }
    assert!(coloured > 50);
}

#[test]
fn a_repainted_object_has_the_colour_of_its_caption() {
    // A shaded disc in three hues: what repainting must cover.
    for base in [[210u8, 60, 40], [60, 160, 70], [240, 200, 60]] {
        let mut sprite = vec![0u8; SPRITE_BYTES];
        for (i, pixel) in sprite.chunks_exact_mut(4).enumerate() {
            let (x, y) = ((i % 128) as f32 - 64.0, (i / 128) as f32 - 64.0);
            let shade = 1.0 - 0.35 * (x + y).abs() / 110.0;
            if x * x + y * y < 52.0 * 52.0 {
                let [r, g, b] = base.map(|v| (f32::from(v) * shade) as u8);
                pixel.copy_from_slice(&[r, g, b, 255]);
            }
        }
        let palette = Palette::of(&sprite);
        assert!(palette.is_hue_shiftable());
        for colour in Colour::OBJECTS {
            let mut painted = sprite.clone();
            colour::repaint(&mut painted, palette.hue, palette.luma, colour);
            assert_eq!(
                Palette::of(&painted).main,
                Some(colour),
                "{base:?} painted {}",
                colour.name()
            );
            let same_alpha = painted
                .chunks_exact(4)
                .zip(sprite.chunks_exact(4))
                .all(|(a, b)| a[3] == b[3]);
            assert!(same_alpha);
        }
    }
}

#[test]
fn grey_objects_are_not_repainted() {
    let grey = [150u8, 150, 152, 255].repeat(128 * 128);
    assert!(!Palette::of(&grey).is_hue_shiftable());
}

#[test]
fn every_colour_is_called_by_its_own_name() {
    for colour in Colour::OBJECTS {
        assert_eq!(colour::name_of(colour.object()), colour);
        assert_eq!(Colour::from_name(colour.name()), Some(colour));
    }
}

#[test]
fn articles_follow_sound_and_plurals_take_none() {
    for (label, phrase) in [
        ("apple", "an apple"),
        ("unicorn", "a unicorn"),
        ("hourglass", "an hourglass"),
        ("x-ray", "an x-ray"),
        ("chopsticks", "a pair of chopsticks"),
        ("scissors", "a pair of scissors"),
        ("bus", "a bus"),
        ("cactus", "a cactus"),
        ("peanuts", "peanuts"),
        ("men wrestling", "men wrestling"),
        ("person lifting weights", "a person lifting weights"),
        ("face with bags under eyes", "a face with bags under eyes"),
        ("cooked rice", "cooked rice"),
    ] {
        assert_eq!(caption::phrase_of(label), phrase);
    }
}

#[test]
fn colours_stand_before_the_noun_with_the_right_article() {
    for (phrase, expected) in [
        ("an apple", "a green apple"),
        ("a car", "a green car"),
        ("a pair of scissors", "a pair of green scissors"),
        ("french fries", "green french fries"),
        ("the sun", "the green sun"),
    ] {
        assert_eq!(caption::with_adjective(phrase, "green"), expected);
    }
    assert_eq!(caption::with_adjective("a car", "orange"), "an orange car");
}

#[test]
fn a_noun_that_says_its_colour_is_given_no_other() {
    for (phrase, says) in [
        ("a green apple", true),
        ("a blue heart", true),
        ("an orange", false),
        ("a car", false),
    ] {
        assert_eq!(caption::says_colour(phrase), says, "{phrase}");
    }
    let (folder, _) = built();
    let data = Dataset::open(&folder.path().join("out")).unwrap();
    let coloured = |phrase: &str| {
        let noun = data.nouns.iter().position(|n| n.phrase == phrase).unwrap();
        data.sprites.iter().filter(|s| s.noun == noun).all(|s| s.hue_shiftable)
    };
    assert_eq!(["a dog", "a green apple", "a baby"].map(coloured), [true, false, false]);
}

#[test]
fn plurals_are_spelled_as_english_spells_them() {
    for (one, many) in [
        ("dog", "dogs"),
        ("mouse", "mice"),
        ("strawberry", "strawberries"),
        ("box", "boxes"),
        ("wolf", "wolves"),
        ("slice of cheese", "slices of cheese"),
        ("ladybug", "ladybugs"),
        ("maple leaf", "maple leaves"),
        ("key", "keys"),
    ] {
        assert_eq!(caption::plural(one), many);
    }
    assert_eq!(caption::several("some carrots"), "carrots");
}

#[test]
fn a_full_caption_reads_as_the_recipe_says() {
    let said = Said {
        colour: Some(Colour::Red),
        tag: Some("pet"),
        background: Some(Colour::Orange),
        style: Some("flat"),
    };
    let captions: Vec<String> = (0..20)
        .map(|i| caption::english("an owl", said, &mut Random::new(&[i])))
        .collect();
    assert!(captions.contains(&"a red owl, pet, orange background, flat".to_owned()));
    assert!(captions.contains(&"a red owl, pet on an orange background, flat".to_owned()));
}

#[test]
fn the_core_list_has_no_noun_twice() {
    let nouns = core_nouns();
    assert!(nouns.len() >= 150);
    for (i, noun) in nouns.iter().enumerate() {
        assert!(nouns[..i].iter().all(|n| n.phrase != noun.phrase), "{}", noun.phrase);
        let first = noun.phrase.split(' ').next().unwrap();
        let bare = caption::without_article(&noun.phrase);
        if first == "a" || first == "an" {
            assert_eq!(first, caption::indefinite_article(bare), "{}", noun.phrase);
        }
    }
}

#[test]
fn a_missing_package_is_named_with_the_command_that_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = BuildOptions {
        packages: folder.path().to_owned(),
        photos: None,
        pixel_art: None,
        out: folder.path().join("out"),
        profile: Profile::Core,
        vocab_size: 600,
        seed: 0,
    };
    let error = build(&options, &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("npm pack emojibase-data"), "{error}");
}

#[test]
fn a_truncated_pixel_file_is_refused() {
    let (folder, _) = build_new();
    let out = folder.path().join("out");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(out.join("sprites.rgba"))
        .unwrap();
    file.set_len(1000).unwrap();
    assert!(matches!(
        Dataset::open(&out),
        Err(DataError::Length { found: 1000, .. })
    ));
}

fn corpus() -> WordCounts {
    let splitter = WordSplitter::new().unwrap();
    let mut counts = WordCounts::new();
    for (text, weight) in [
        ("a red Apple", 9),
        ("two apples, 3 pears!", 7),
        ("りんご、赤", 5),
        ("weiß grün", 5),
        ("aaaa", 4),
    ] {
        for word in splitter.words(text).unwrap() {
            *counts.entry(word).or_default() += weight;
        }
    }
    counts
}

fn encode(bpe: &Bpe, folder: &Path, text: &str) -> Vec<String> {
    bpe.write(folder).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let model = BPE::from_file(&path("vocab.json"), &path("merges.txt"))
        .end_of_word_suffix("</w>".to_owned())
        .build()
        .unwrap();
    let words = WordSplitter::new().unwrap().words(text).unwrap();
    words
        .iter()
        .flat_map(|w| model.tokenize(w).unwrap())
        .map(|t| t.value)
        .collect()
}

#[test]
fn frequent_words_become_one_token_in_hugging_face_s_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let bpe = bpe::train(&corpus(), 600);
    assert_eq!(
        encode(&bpe, folder.path(), "A red  APPLE"),
        ["a</w>", "red</w>", "apple</w>"]
    );
}

#[test]
fn any_text_comes_back_from_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let bpe = bpe::train(&corpus(), 560);
    let text = "apples りんご pear42 grün! ✈ zzz";
    let joined = encode(&bpe, folder.path(), text).concat().replace("</w>", " ");
    let words = WordSplitter::new().unwrap().words(text).unwrap().join(" ");
    assert_eq!(joined.trim_end(), words);
}

#[test]
fn the_vocabulary_has_clip_s_order() {
    let bpe = bpe::train(&corpus(), 560);
    assert!(bpe.vocab.len() <= 560);
    assert_eq!(
        (bpe.vocab[0].as_str(), bpe.vocab[255].as_str(), bpe.vocab[256].as_str()),
        ("!", "Ń", "!</w>")
    );
    assert_eq!(bpe.vocab[bpe.vocab.len() - 2..], [START_OF_TEXT, END_OF_TEXT]);
    let mut unique = bpe.vocab.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), bpe.vocab.len());
    assert_eq!(bpe::train(&corpus(), 560), bpe);
}
