use super::*;
use prima_picture::{Format, encode};
use std::fs;

fn png(width: usize, height: usize, value: u8) -> Vec<u8> {
    let picture = Picture {
        width,
        height,
        rgb: vec![value; width * height * 3],
    };
    encode(&picture, Format::Png, 90, None).unwrap()
}

fn words(pictures: &Pictures) -> Vec<&str> {
    (0..pictures.len()).map(|i| pictures.caption(i)).collect()
}

#[test]
fn a_folder_gives_its_pictures_in_order_with_the_words_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("more")).unwrap();
    fs::write(at("b.png"), png(4, 8, 1)).unwrap();
    fs::write(at("b.txt"), "  a blue\ncup ").unwrap();
    fs::write(at("a.PNG"), png(6, 6, 2)).unwrap();
    fs::write(at("more/c.png"), png(8, 4, 3)).unwrap();
    fs::write(at("more/c.caption"), "a cup on a table").unwrap();
    fs::write(at("notes.md"), "no picture").unwrap();
    let wording = Wording {
        caption: Some("a cup".to_owned()),
        column: None,
    };
    let pictures = Pictures::open(folder.path(), &wording).unwrap();
    assert_eq!(words(&pictures), ["a cup", "a blue cup", "a cup on a table"]);
    assert_eq!([0, 1, 2].map(|i| pictures.size_px(i)), [[6, 6], [4, 8], [8, 4]]);
    assert_eq!(pictures.read(2).unwrap().rgb, [3; 96]);
    assert!(pictures.skipped().is_empty());
    // The same set elsewhere is the same; with other words it is another.
    let again = Pictures::open(folder.path(), &wording).unwrap();
    assert_eq!(pictures.sha256(), again.sha256());
    fs::write(at("b.txt"), "a red cup").unwrap();
    let other = Pictures::open(folder.path(), &wording).unwrap();
    assert_ne!(pictures.sha256(), other.sha256());
}

#[test]
fn a_broken_picture_and_one_without_words_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("good.png"), png(4, 4, 1)).unwrap();
    fs::write(at("good.txt"), "a cup").unwrap();
    fs::write(at("half.png"), &png(40, 40, 1)[..60]).unwrap();
    fs::write(at("half.txt"), "half a cup").unwrap();
    fs::write(at("mute.png"), png(4, 4, 1)).unwrap();
    fs::write(at("mute.txt"), " \n").unwrap();
    let pictures = Pictures::open(folder.path(), &Wording::default()).unwrap();
    assert_eq!(words(&pictures), ["a cup"]);
    let said: Vec<String> = pictures.skipped().iter().map(Skipped::to_string).collect();
    assert!(
        said[0].contains("half.png") && said[0].contains("not a picture"),
        "{said:?}"
    );
    assert!(said[1].contains("mute.png") && said[1].contains("no words"), "{said:?}");
    fs::remove_file(at("good.png")).unwrap();
    let error = Pictures::open(folder.path(), &Wording::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("none of its 2 pictures") && error.contains("half.png"),
        "{error}"
    );
    let empty = tempfile::tempdir().unwrap();
    let error = Pictures::open(empty.path(), &Wording::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("no PNG, JPEG or WebP"), "{error}");
}

#[test]
fn tables_of_hugging_face_name_pictures_and_their_words() {
    let jsonl = "{\"file_name\": \"a.png\", \"text\": \"a cup\"}\n{\"file_name\": \"sub/b.png\", \"text\": \"a mug\"}\n\
                 {\"file_name\": \"../out.png\", \"text\": \"x\"}\n{\"file_name\": \"gone.png\", \"text\": \"x\"}\n";
    let csv = "file_name,text\na.png,a cup\nsub/b.png,\"a mug, \"\"blue\"\"\"\n";
    for (file, table, mug, skipped) in [
        ("metadata.jsonl", jsonl, "a mug", 2),
        ("metadata.csv", csv, "a mug, \"blue\"", 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("a.png"), png(4, 4, 1)).unwrap();
        fs::write(at("sub/b.png"), png(4, 4, 2)).unwrap();
        fs::write(at(file), table).unwrap();
        let pictures = Pictures::open(folder.path(), &Wording::default()).unwrap();
        assert_eq!(words(&pictures), ["a cup", mug], "{file}");
        assert_eq!(pictures.skipped().len(), skipped, "{:?}", pictures.skipped());
        let other = Wording {
            column: Some("label".to_owned()),
            caption: None,
        };
        let error = Pictures::open(folder.path(), &other).unwrap_err().to_string();
        assert!(
            error.contains("no words") || error.contains("no column label"),
            "{error}"
        );
    }
}

#[test]
fn a_table_that_is_none_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.png"), png(4, 4, 1)).unwrap();
    fs::write(
        folder.path().join("metadata.jsonl"),
        "{\"file_name\": \"a.png\"}\n{oops\n",
    )
    .unwrap();
    let error = Pictures::open(folder.path(), &Wording::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("metadata.jsonl") && error.contains("line 2"), "{error}");
}

#[test]
fn shards_give_the_pictures_and_words_of_their_samples() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, files: &[(&str, Vec<u8>)]| {
        let mut tar = tar::Builder::new(File::create(folder.path().join(name)).unwrap());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, &bytes[..]).unwrap();
        }
        tar.finish().unwrap();
    };
    let json = |text: &str| format!("{{\"caption\": \"{text}\", \"width\": 4}}").into_bytes();
    write(
        "0.tar",
        &[
            ("x/001.png", png(4, 4, 1)),
            ("x/001.txt", b"a cup".to_vec()),
            ("x/002.json", json("a mug")),
            ("x/002.jpg.png", png(4, 8, 2)),
        ],
    );
    write(
        "1.tar",
        &[
            ("001.png", b"broken".to_vec()),
            ("001.txt", b"x".to_vec()),
            ("3.png", png(8, 4, 3)),
        ],
    );
    let wording = Wording {
        caption: Some("a thing".to_owned()),
        column: None,
    };
    let pictures = Pictures::open(folder.path(), &wording).unwrap();
    assert_eq!(words(&pictures), ["a cup", "a mug", "a thing"]);
    assert_eq!(pictures.read(1).unwrap().rgb, [2; 96]);
    assert_eq!(pictures.size_px(2), [8, 4]);
    assert!(pictures.skipped()[0].to_string().contains("1.tar/001.png"));
    let one = Pictures::open(&folder.path().join("0.tar"), &Wording::default()).unwrap();
    assert_eq!(words(&one), ["a cup", "a mug"]);
}

#[test]
fn buckets_have_about_the_area_of_the_square_and_pictures_go_to_the_nearest_shape() {
    let sizes = buckets(1024, 64);
    assert!(sizes.contains(&[1024, 1024]) && sizes.contains(&[1152, 896]) && sizes.contains(&[832, 1280]));
    for [w, h] in &sizes {
        let area = (w * h) as f64 / 1024.0 / 1024.0;
        assert!((0.9..1.1).contains(&area) && w % 64 == 0 && h % 64 == 0, "{w}x{h}");
    }
    assert_eq!(nearest(&sizes, [4000, 3000]), Some([1152, 896]));
    assert_eq!(nearest(&sizes, [100, 5000]), Some([768, 1344]));
    assert_eq!(buckets(128, 64), [[128, 128]]);
}

#[test]
fn what_was_cut_off_is_known() {
    let picture = Picture {
        width: 8,
        height: 4,
        rgb: (0..8 * 4).flat_map(|i| [(i % 8) as u8; 3]).collect(),
    };
    let Fitted {
        picture,
        original_px,
        crop_px,
    } = fitted(&picture, [4, 4]);
    assert_eq!((original_px, crop_px), ([4, 8], [0, 2]));
    assert_eq!(picture.rgb[..12], [2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]);
}

#[test]
fn parquet_files_of_hugging_face_are_read_row_by_row() {
    let file = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../goldens/parquet")
            .join(name)
    };
    let pictures = Pictures::open(&file("imagefolder.parquet"), &Wording::default()).unwrap();
    assert_eq!(words(&pictures), ["a red card", "a green card", "a dark card"]);
    assert_eq!([0, 1, 2].map(|i| pictures.size_px(i)), [[4, 8], [6, 6], [4, 4]]);
    assert_eq!(pictures.read(0).unwrap().rgb[..3], [200, 0, 0]);
    assert_eq!(pictures.read(2).unwrap().rgb, [9; 48]);
    let said: Vec<String> = pictures.skipped().iter().map(Skipped::to_string).collect();
    assert!(said[0].contains("row 3") && said[0].contains("no picture"), "{said:?}");
    assert!(said[1].contains("row 4") && said[1].contains("no words"), "{said:?}");
    // One caption for all without; bytes without a path; a folder of both.
    let wording = Wording {
        caption: Some("a card".to_owned()),
        column: None,
    };
    let pictures = Pictures::open(&file(""), &wording).unwrap();
    assert_eq!(pictures.len(), 6);
    assert_eq!(words(&pictures)[2], "a card");
    assert_eq!(words(&pictures)[4..], ["a red card", "a green card"]);
    let wrong = Wording {
        caption: None,
        column: Some("alt".to_owned()),
    };
    let error = Pictures::open(&file("plain.parquet"), &wrong).unwrap_err().to_string();
    assert!(error.contains("no column alt"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("half.parquet"),
        &fs::read(file("plain.parquet")).unwrap()[..500],
    )
    .unwrap();
    let error = Pictures::open(folder.path(), &wording).unwrap_err().to_string();
    assert!(error.contains("half.parquet"), "{error}");
}
