//! The command line that people expect: a prompt without more, names of files, lists, shells.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{folder, golden, prima, stderr};
use prima_picture::{Format, Picture, read_parameters};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `prima ARGS --model TINY --steps 1 --seed 7`, with the rest of the words of a line.
fn painted(folder: &Path, args: &[&str]) -> Output {
    let model = golden("tiny-sdxl").display().to_string();
    let output = prima(folder, &[args, &["--model", &model, "--steps", "1"]].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    output
}

fn stdout(output: &Output) -> Vec<&str> {
    std::str::from_utf8(&output.stdout).unwrap().lines().collect()
}

fn prompt_of(path: &Path) -> String {
    read_parameters(&fs::read(path).unwrap()).unwrap().unwrap().prompt
}

fn with_input(folder: &Path, args: &[&str], input: &str) -> Output {
    let model = golden("tiny-sdxl").display().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_prima"))
        .current_dir(folder)
        .args(args)
        .args(["--model", &model, "--steps", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn words_are_a_prompt_with_or_without_command_and_quotes() {
    let folder = folder("bare");
    for (i, args) in [
        &["a red apple"][..],
        &["a", "red", "apple"],
        &["paint", "a", "red", "apple"],
        &["--threads", "1", "a", "red apple"],
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{i}.png");
        painted(&folder, &[*args, &["-o", &name, "--seed", "7"]].concat());
        assert_eq!(prompt_of(&folder.join(&name)), "a red apple");
    }
    assert_eq!(
        fs::read(folder.join("0.png")).unwrap(),
        fs::read(folder.join("3.png")).unwrap()
    );
    let mistyped = prima(&folder, &["pain", "a red apple"]);
    assert_eq!(mistyped.status.code(), Some(2));
    assert!(
        stderr(&mistyped).contains("did you mean `prima paint`"),
        "{}",
        stderr(&mistyped)
    );
}

#[test]
fn prompts_come_from_stdin_and_from_lists() {
    let folder = folder("lists");
    let output = with_input(&folder, &["-", "-o", "in.png"], "a cat\n");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(prompt_of(&folder.join("in.png")), "a cat");

    fs::write(folder.join("list.txt"), "\u{feff}a cat\n\n  a dog  \n").unwrap();
    let output = painted(
        &folder,
        &["--prompts", "list.txt", "-n", "2", "-o", "list.png", "--seed", "7"],
    );
    assert_eq!(
        stdout(&output),
        ["list-1.png", "list-2.png", "list-3.png", "list-4.png"]
    );
    assert_eq!(prompt_of(&folder.join("list-2.png")), "a cat");
    assert_eq!(prompt_of(&folder.join("list-3.png")), "a dog");

    fs::create_dir(folder.join("made")).unwrap();
    let output = painted(
        &folder,
        &[
            "--prompts",
            "list.txt",
            "-o",
            "made/{prompt}-{seed}-{index}.png",
            "--seed",
            "7",
        ],
    );
    assert_eq!(stdout(&output).len(), 2);
}

#[test]
fn names_of_files_hold_prompt_seed_and_index_and_may_be_a_folder() {
    let folder = folder("names");
    fs::create_dir(folder.join("made")).unwrap();
    let seed = ["--seed", "7"];
    let name = |args: &[&str]| {
        let output = painted(&folder, &[args, &seed].concat());
        stdout(&output).join(" ")
    };
    assert_eq!(name(&["a cat", "-o", "{prompt}_{seed}_{index}.png"]), "a-cat_7_1.png");
    assert_eq!(name(&["a cat", "-o", "made"]), "made/prima-7.png");
    assert_eq!(name(&["a cat", "-o", "new/"]), "new/prima-7.png");
    assert_eq!(name(&["a cat"]), "prima-7.png");
    let wrong = prima(&folder, &["a cat", "-o", "{steps}.png"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        stderr(&wrong).contains("{prompt}, {seed} or {index}"),
        "{}",
        stderr(&wrong)
    );
}

#[test]
fn formats_follow_the_ending_and_each_file_says_how_it_was_painted() {
    let folder = folder("formats");
    for (name, start) in [
        ("a.jpg", &b"\xff\xd8"[..]),
        ("a.JPEG", b"\xff\xd8"),
        ("a.webp", b"RIFF"),
        ("a.png", b"\x89PNG"),
    ] {
        painted(&folder, &["a cat", "-o", name, "--seed", "7"]);
        let file = fs::read(folder.join(name)).unwrap();
        assert!(file.starts_with(start), "{name}");
        assert_eq!(prompt_of(&folder.join(name)), "a cat", "{name}");
    }
    let output = painted(&folder, &["a cat", "-o", "-", "--seed", "7"]);
    assert_eq!(output.stdout, fs::read(folder.join("a.png")).unwrap());
    assert!(Format::named("jpg").is_some() && Picture::decode(&output.stdout, "stdout").is_ok());
    let two = prima(&folder, &["a cat", "-n", "2", "-o", "-"]);
    assert_eq!(two.status.code(), Some(2));
    let both = prima(&folder, &["a cat", "--json", "-o", "-"]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn a_file_that_is_there_stays_unless_it_may_go() {
    let folder = folder("there");
    let paint = |args: &[&str]| painted(&folder, &[&["a cat", "-o", "out.png"], args].concat());
    fs::write(folder.join("out.png"), "old").unwrap();
    let output = paint(&["--seed", "7"]);
    assert_eq!(stdout(&output), ["out-2.png"]);
    assert!(stderr(&output).contains("--overwrite"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(folder.join("out.png")).unwrap(), "old");
    assert_eq!(stdout(&paint(&["--seed", "8"])), ["out-3.png"]);
    assert_eq!(stdout(&paint(&["-n", "2"])), ["out-4.png", "out-5.png"]);
    assert_eq!(stdout(&paint(&["--overwrite"])), ["out.png"]);
    assert_ne!(fs::read(folder.join("out.png")).unwrap(), b"old");
}

#[test]
fn a_seed_of_minus_one_is_a_random_one() {
    let folder = folder("minus-one");
    let seeds: Vec<String> = (0..2)
        .map(|_| stdout(&painted(&folder, &["a cat", "--seed", "-1"]))[0].to_owned())
        .collect();
    assert_ne!(seeds[0], seeds[1]);
}

#[test]
fn shells_and_man_are_told_of_every_command() {
    let folder = folder("shells");
    for args in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["man"],
    ] {
        let output = prima(&folder, args);
        let text = String::from_utf8_lossy(&output.stdout).replace("\\-", "-");
        for word in ["paint", "serve", "models", "train"] {
            assert!(text.contains(word), "{args:?} does not know {word}");
        }
    }
    let page = prima(&folder, &["man", "paint"]);
    assert!(
        String::from_utf8_lossy(&page.stdout)
            .replace("\\-", "-")
            .contains("--prompt-syntax")
    );
}
