//! What the packages of the repository depend on: from where, under which licence, and how much of it is cryptography.
//!
//! Reads `Cargo.lock` through `cargo metadata`, without a network. Known vulnerabilities are in a database that has to be
//! fetched: `cargo audit` compares `Cargo.lock` with it.

#[expect(dead_code, reason = "files are not gone through here")]
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use rules::{Complaints, ROOT};
use serde_json::Value;

/// Licences that let a program be passed on with nothing but their text beside it. CONTRIBUTING.md asks for one that fits.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What the server must not contain, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "TLS is rustls: memory-safe, and sans-IO"),
    ("native-tls", "the same"),
    (
        "aws-lc-sys",
        "cryptography is ring's; a second provider needs cmake and doubles it",
    ),
    (
        "rsa",
        "its private operations are not constant-time (RUSTSEC-2023-0071)",
    ),
    (
        "jsonwebtoken",
        "Cargo.toml says why tokens are checked here; only tests use it",
    ),
    ("openssl", "as openssl-sys"),
];

/// Cryptography, of which the server has one version each.
const CRYPTOGRAPHY: &[&str] = &[
    "ring",
    "rustls",
    "rustls-pki-types",
    "rustls-webpki",
    "sha1",
    "tokio-rustls",
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Every dependency is a package of crates.io that `Cargo.lock` names with its checksum, or part of this repository.
#[test]
fn dependencies_come_from_crates_io() {
    for folder in [".", "fuzz"] {
        let lock = Path::new(ROOT).join(folder).join("Cargo.lock");
        let text = std::fs::read_to_string(&lock).expect("a lock file");
        let lock_file: toml::Table = text.parse().expect("TOML");
        let packages = lock_file["package"].as_array().expect("packages");
        assert!(packages.len() > 100, "the rule is about nothing");
        let mut complaints = Complaints::default();
        for package in packages {
            let source = package.get("source").and_then(toml::Value::as_str);
            let has_checksum = package.get("checksum").is_some();
            if source.is_some_and(|source| source != CRATES_IO || !has_checksum) {
                complaints.add(&lock, package["name"].to_string());
            }
        }
        complaints
            .assert_none("a dependency is a released package of crates.io, with its checksum");
    }
}

/// The fuzz targets have a lock file of their own, and `fuzz/run` refuses to build with one that is out of date. It is
/// brought up to date by `cargo metadata --manifest-path fuzz/Cargo.toml`.
#[test]
fn the_fuzz_targets_lock_every_dependency() {
    let lock = Path::new(ROOT).join("fuzz/Cargo.lock");
    let text = std::fs::read_to_string(&lock).expect("a lock file");
    let lock_file: toml::Table = text.parse().expect("TOML");
    let locked = lock_file["package"].as_array().expect("packages");
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let mut complaints = Complaints::default();
    for package in packages.iter().filter(|one| one["source"].is_null()) {
        let name = package["name"].as_str();
        // loadgen has no target.
        let Some(entry) = locked.iter().find(|one| one["name"].as_str() == name) else {
            continue;
        };
        let entries = entry["dependencies"].as_array().expect("dependencies");
        // Beside a name stands the version if there are several.
        let names: Vec<_> = entries
            .iter()
            .filter_map(|one| one.as_str()?.split(' ').next())
            .collect();
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let needed = dependency["name"].as_str().expect("a name");
            let is_linked = dependency["kind"].is_null() && dependency["optional"] == false;
            if is_linked && !names.contains(&needed) {
                complaints.add(&lock, needed);
            }
        }
    }
    complaints.assert_none("fuzz/Cargo.lock has the dependencies of the packages that are fuzzed");
}

/// Every dependency has a licence of the list, or a choice of them that includes one.
#[test]
fn licences_fit() {
    let manifest = Path::new(ROOT).join("Cargo.toml");
    let mut complaints = Complaints::default();
    for package in metadata()["packages"].as_array().expect("packages") {
        if package["source"].is_null() {
            continue;
        }
        let name = &package["name"];
        match package["license"].as_str() {
            None => complaints.add(&manifest, format!("{name} names no licence")),
            Some(text) if !is_allowed(text) => complaints.add(&manifest, format!("{name}: {text}")),
            Some(_) => {}
        }
    }
    complaints.assert_none(
        "a dependency has a licence of LICENCES in this file. Look for another package, or add the licence with its reason",
    );
}

/// The server contains nothing that is banned, and one version of each piece of cryptography.
#[test]
fn the_servers_cryptography_is_one() {
    let manifest = Path::new(ROOT).join("Cargo.toml");
    let server = contents("tickring");
    let mut complaints = Complaints::default();
    for (name, reason) in BANNED {
        if server.contains_key(*name) {
            complaints.add(&manifest, format!("{name}: {reason}"));
        }
    }
    for name in CRYPTOGRAPHY {
        let versions = server.get(*name).map_or(0, BTreeSet::len);
        if versions != 1 {
            complaints.add(&manifest, format!("{versions} versions of {name}"));
        }
    }
    complaints
        .assert_none("the server has one implementation of everything that secrets depend on");
}

/// The protocol crate is for anybody: it brings along little.
#[test]
fn the_protocol_brings_little_along() {
    let names: Vec<_> = contents("tickring-protocol").into_keys().collect();
    assert!(names.len() <= 30, "{} packages: {names:?}", names.len());
}

/// Choices are understood as SPDX writes them.
#[test]
fn licence_expressions_are_understood() {
    for text in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "Apache-2.0 AND ISC",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(is_allowed(text), "{text}");
    }
    for text in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR ISC) AND GPL-3.0",
        "SSPL-1.0 OR GPL-3.0",
    ] {
        assert!(!is_allowed(text), "{text}");
    }
}

/// True if a choice that the expression offers needs only licences of the list. An exception only adds permissions.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any_of(&mut rest) && rest.is_empty()
}

fn any_of(words: &mut &[&str]) -> bool {
    let mut is_allowed = all_of(words);
    while let ["OR", rest @ ..] = words {
        *words = rest;
        is_allowed |= all_of(words);
    }
    is_allowed
}

fn all_of(words: &mut &[&str]) -> bool {
    let mut is_allowed = one(words);
    while let ["AND", rest @ ..] = words {
        *words = rest;
        is_allowed &= one(words);
    }
    is_allowed
}

fn one(words: &mut &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let is_allowed = any_of(words);
            *words = words.strip_prefix(&[")"]).unwrap_or(&["unbalanced"]);
            is_allowed
        }
        [name, "WITH", _, rest @ ..] | [name, rest @ ..] => {
            *words = rest;
            LICENCES.contains(name)
        }
        [] => false,
    }
}

/// What is linked into a package on this platform: the versions by name, itself left out.
fn contents(root: &str) -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let by_id: BTreeMap<&str, &Value> = packages
        .iter()
        .map(|package| (package["id"].as_str().expect("an id"), package))
        .collect();
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let node_of = |id: &str| nodes.iter().find(|node| node["id"] == id).expect("a node");
    let root = packages.iter().find(|package| package["name"] == root);
    let mut queue = vec![root.expect("a package")["id"].as_str().expect("an id")];
    let mut seen: BTreeSet<&str> = queue.iter().copied().collect();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while let Some(id) = queue.pop() {
        for dependency in node_of(id)["deps"].as_array().expect("dependencies") {
            let kinds = dependency["dep_kinds"].as_array().expect("kinds");
            let is_linked = kinds.iter().any(|kind| kind["kind"].is_null());
            let id = dependency["pkg"].as_str().expect("an id");
            if is_linked && seen.insert(id) {
                queue.push(id);
                let package = by_id[id];
                let text = |key: &str| package[key].as_str().expect("text").to_owned();
                found
                    .entry(text("name"))
                    .or_default()
                    .insert(text("version"));
            }
        }
    }
    found
}

fn metadata() -> Value {
    let version = Command::new("rustc")
        .arg("-vV")
        .output()
        .expect("rustc runs");
    let version = String::from_utf8(version.stdout).expect("text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", host.expect("a host")])
        .current_dir(ROOT)
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}
