//! Files of one crate that import each other in a circle: none of them can be read before the others.

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The most files of a circle, in crates that have one yet. Who cuts a circle lowers its number.
const CEILINGS: &[(&str, usize)] = &[("cuda", 3), ("data", 2), ("tensor", 4), ("train", 7)];

/// Each module, and those that it names by `crate::` or `super::`. The root has no line: it names all of them.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Fails with every circle that has more files than its crate may have.
pub fn check(root: &Path) -> Result<()> {
    let crates = root.join("crates");
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&crates).with_context(|| format!("{} cannot be read", crates.display()))? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let most = CEILINGS.iter().find(|(n, _)| *n == name).map_or(1, |(_, most)| *most);
        let mut sources = BTreeMap::new();
        read_modules(&folder.join("src"), "", &mut sources)?;
        let circle = largest_circle(&imports(&sources));
        if circle.len() > most {
            let files = circle.join(", ");
            wrong.push(format!("{name}: {} where {most} may be: {files}", circle.len()));
        }
    }
    if !wrong.is_empty() {
        bail!(
            "files import each other in a circle; move what they share below them:\n  {}",
            wrong.join("\n  ")
        );
    }
    Ok(())
}

/// The source of each module below `folder`, by its path from the crate's root.
fn read_modules(folder: &Path, path: &str, sources: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let file = entry?.path();
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let inner = [path, &name].join(if path.is_empty() { "" } else { "::" });
        if file.is_dir() {
            read_modules(&file, &inner, sources)?;
        } else if file.extension().is_some_and(|e| e == "rs") {
            let module = match name.as_str() {
                "mod" | "lib" | "main" => path,
                _ => &inner,
            };
            sources.insert(module.to_owned(), fs::read_to_string(&file)?);
        }
    }
    Ok(())
}

fn imports(sources: &BTreeMap<String, String>) -> Imports {
    let modules = sources.iter().filter(|(module, _)| !module.is_empty());
    let imported_by = |module: &String, source: &String| -> BTreeSet<String> {
        let prefixes = |path: Vec<&str>| (1..=path.len()).rev().map(|n| path[..n].join("::")).collect::<Vec<_>>();
        let file_of = |path| prefixes(path).into_iter().find(|p| sources.contains_key(p));
        let own = module.split("::").collect::<Vec<_>>();
        paths(&own, source)
            .into_iter()
            .filter_map(file_of)
            .filter(|m| m != module)
            .collect()
    };
    modules.map(|(m, source)| (m.clone(), imported_by(m, source))).collect()
}

/// The paths from the crate's root that a module's shipped code names.
fn paths<'a>(module: &[&'a str], source: &'a str) -> Vec<Vec<&'a str>> {
    let shipped = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let tokens: Vec<&str> = shipped
        .lines()
        .flat_map(|line| tokens(line.split("//").next().unwrap_or_default()))
        .collect();
    let mut found = Vec::new();
    for (i, pair) in tokens.windows(2).enumerate() {
        let goes_on = i > 0 && tokens[i - 1] == "::";
        if goes_on || !matches!(pair, ["crate" | "super", "::"]) {
            continue;
        }
        let (mut base, mut rest) = (module, &tokens[i..]);
        while let ["super", "::", after @ ..] = rest {
            (base, rest) = (&base[..base.len().saturating_sub(1)], after);
        }
        if let ["crate", "::", after @ ..] = rest {
            (base, rest) = (&[], after);
        }
        read_paths(&mut rest, base, &mut found);
    }
    found
}

fn tokens(code: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut tokens, mut rest) = (Vec::new(), code.trim_start());
    while let Some(first) = rest.chars().next() {
        let length = match first {
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Takes a path, `a::b` or `a::{b, c::{d, e}}`, from the front.
fn read_paths<'a>(tokens: &mut &[&'a str], base: &[&'a str], found: &mut Vec<Vec<&'a str>>) {
    let mut path = base.to_vec();
    loop {
        match *tokens {
            ["{", rest @ ..] => {
                *tokens = rest;
                loop {
                    match *tokens {
                        [] => return,
                        ["}", rest @ ..] => {
                            *tokens = rest;
                            return;
                        }
                        [",", rest @ ..] | ["as", _, rest @ ..] => *tokens = rest,
                        _ => read_paths(tokens, &path, found),
                    }
                }
            }
            [name, "::", rest @ ..] => {
                path.push(*name);
                *tokens = rest;
            }
            [name, rest @ ..] => {
                path.push(*name);
                found.push(path);
                *tokens = rest;
                return;
            }
            [] => return,
        }
    }
}

fn largest_circle(imports: &Imports) -> Vec<String> {
    let reached = imports.keys().map(|from| (from, reached_from(from, imports)));
    let reached: BTreeMap<&String, BTreeSet<&String>> = reached.collect();
    let circle = |from: &String| -> Vec<String> {
        let others = reached[from].iter().filter(|to| reached[**to].contains(from));
        others.map(|to| (*to).clone()).collect()
    };
    imports.keys().map(circle).max_by_key(Vec::len).unwrap_or_default()
}

fn reached_from<'a>(from: &'a String, imports: &'a Imports) -> BTreeSet<&'a String> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        let new = imports.get(module).into_iter().flatten().filter(|m| reached.insert(*m));
        open.extend(new);
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(sources: &[(&str, &str)]) -> Vec<String> {
        let sources = sources.iter().map(|(m, s)| ((*m).to_owned(), (*s).to_owned()));
        largest_circle(&imports(&sources.collect()))
    }

    #[test]
    fn a_circle_through_groups_and_parents_is_found() {
        let sources = [
            ("", "mod a; mod b; use crate::a::A;"),
            ("a", "use crate::{Root, b::{c::{C as D, E}, B}};"),
            ("b", "pub(super) fn f() {}"),
            ("b::c", "fn f() { super::super::a::g(); }"),
        ];
        assert_eq!(circle(&sources), ["a", "b::c"]);
    }

    #[test]
    fn what_only_comments_and_tests_name_is_no_import() {
        let sources = [
            ("a", "use crate::b::B;\nfn f() {} // as crate::b does"),
            (
                "b",
                "/// See [`crate::a`].\npub struct B;\n#[cfg(test)]\nmod tests { use crate::a::f; }",
            ),
        ];
        assert!(circle(&sources).is_empty());
    }
}
