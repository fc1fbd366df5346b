//! The house: modules import modules of lower layers only. The table in the header of `src/lib.rs` says which module is
//! in which layer; this test reads that table and every source file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Nothing imports upwards, and nothing imports another module of its own layer.
#[test]
fn nothing_imports_upwards() {
    let layers = layers();
    let mut complaints = Vec::new();
    let mut seen = Vec::new();
    for file in rust_files(&source()) {
        let module = module_of(&file);
        if ["lib", "main", "tests"].contains(&module.as_str()) {
            // These stand above all layers.
            continue;
        }
        let Some(layer) = layers.get(&module) else {
            complaints.push(format!("{}: no layer has `{module}`", file.display()));
            continue;
        };
        let text = without_comments(&fs::read_to_string(&file).unwrap());
        for used in used_modules(&text, depth_of(&file)) {
            let is_lower = layers.get(&used).is_none_or(|below| below < layer);
            if used != module && !is_lower {
                complaints.push(format!("{}: uses `{used}`", file.display()));
            }
        }
        seen.push(module);
    }
    for module in layers.keys().filter(|module| !seen.contains(module)) {
        complaints.push(format!("the table names `{module}`, which does not exist"));
    }
    assert!(
        complaints.is_empty(),
        "{}\nThe table of layers is in src/lib.rs. Move what is needed to a lower layer, or pass it in as an argument",
        complaints.join("\n")
    );
}

/// The test would notice: a path from the crate's root is found however it is written.
#[test]
fn imports_are_found() {
    let found = |text: &str, depth| used_modules(text, depth).join(" ");
    assert_eq!(found("use crate::plan::Plan;", 1), "plan");
    assert_eq!(
        found("use crate::{cli::{self, Cli}, run::{run, Outcome}};", 1),
        "cli run"
    );
    assert_eq!(found("crate::report::write(x)", 2), "report");
    assert_eq!(found("use super::worker::Setup;", 1), "worker");
    assert_eq!(found("use super::super::worker::Setup;", 2), "worker");
    assert_eq!(found("use super::worker::Setup;", 2), "");
}

/// Each module with its layer, from rows such as ``| 2 | `measure` | what it is for |``.
fn layers() -> BTreeMap<String, u32> {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let mut layers = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let &["//!", number, modules, _, ""] = cells.as_slice() else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        for module in modules.split_ascii_whitespace() {
            let former = layers.insert(module.trim_matches('`').to_owned(), number);
            assert!(former.is_none(), "the table names {module} twice");
        }
    }
    assert!(layers.len() > 10, "src/lib.rs has no table of layers");
    layers
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// `src/a/b.rs` and `src/a.rs` belong to the module `a`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(source()).unwrap();
    let first = inside.iter().next().unwrap().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

/// How many times `super` leads from the file to the crate's root.
fn depth_of(file: &Path) -> usize {
    let inside = file.strip_prefix(source()).unwrap();
    inside.iter().count() - usize::from(file.file_stem().unwrap() == "mod")
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| {
        line.split_once("//")
            .map_or(line, |(code, _)| code)
            .to_owned()
    };
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

/// The names after `crate::`, and after as many `super::` as lead to the crate's root.
fn used_modules(text: &str, depth: usize) -> Vec<String> {
    let mut used = Vec::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in text.match_indices(&root) {
            let is_longer = text[..at].ends_with("super::");
            let rest = &text[at + root.len()..];
            if is_longer || rest.starts_with("super::") {
                continue;
            }
            match rest.strip_prefix('{') {
                Some(group) => used.extend(names_of_group(group)),
                None => used.push(name(rest)),
            }
        }
    }
    used
}

/// The first name of each item of `a::b, c::{d, e}}`, up to the bracket that closes it.
fn names_of_group(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut is_item_start) = (0, true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_item_start = true,
            letter if is_item_start && !letter.is_whitespace() => {
                names.push(name(&group[at..]));
                is_item_start = false;
            }
            _ => {}
        }
    }
    names
}

fn name(text: &str) -> String {
    let is_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    text.chars().take_while(is_name).collect()
}
