//! The page is embedded by a macro that sees files, not folders: a new file has to trigger it too.

fn main() {
    println!("cargo::rerun-if-changed=../../web");
    println!("cargo::rerun-if-changed=build.rs");
}
