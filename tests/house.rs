//! The house: which module may use which, and what a file looks like. Each test is a rule: what it says, where it is
//! broken, and what to do.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rules::{Complaints, ROOT, files};

/// The walls inside `src/`: each module, and what of the rest of the crate, and of tickring's other crates, it may use.
/// What stands further down never uses what stands further up.
const WALLS: &[(&str, &[&str])] = &[
    ("main", &["config", "health", "server", "usage"]),
    // `tickring health`: asks a server that runs.
    ("health", &["config", "limits", "tickring_tls"]),
    (
        "server",
        &[
            "config",
            "control",
            "hub",
            "limits",
            "mailbox",
            "metrics",
            "shard",
            "tickring_ring",
        ],
    ),
    (
        "control",
        &[
            "access",
            "config",
            "hub",
            "limits",
            "mailbox",
            "mapping",
            "metrics",
            "tickring_protocol",
            "tickring_ring",
            "tickring_tls",
            "usage",
        ],
    ),
    ("usage", &["access"]),
    (
        "shard",
        &[
            "access",
            "config",
            "console",
            "http",
            "hub",
            "limits",
            "mailbox",
            "metrics",
            "session",
            "tickring_protocol",
            "tickring_ring",
            "tickring_tls",
        ],
    ),
    (
        "mailbox",
        &["access", "config", "hub", "tickring_ring", "tickring_tls"],
    ),
    (
        "config",
        &["access", "hub", "limits", "mapping", "tickring_protocol"],
    ),
    (
        "session",
        &[
            "access",
            "condition",
            "hub",
            "json",
            "limits",
            "tickring_protocol",
        ],
    ),
    ("mapping", &["condition", "hub", "json", "limits"]),
    // Of the hub only the names of topics and patterns.
    ("access", &["condition", "hub", "limits"]),
    // Of the ring only the type of the bytes that many connections share.
    ("hub", &["condition", "json", "limits", "tickring_ring"]),
    ("condition", &["json", "limits"]),
    // Only the lists of origins and of proxies.
    ("http", &["access", "limits", "tickring_protocol"]),
    ("metrics", &["tickring_ring"]),
    ("console", &[]),
    ("json", &[]),
    ("limits", &["tickring_protocol", "tickring_ring"]),
];

/// The crates, and which of tickring's other crates each may depend on.
const CRATES: &[(&str, &[&str])] = &[
    (".", &["tickring-protocol", "tickring-ring", "tickring-tls"]),
    ("crates/protocol", &[]),
    ("crates/ring", &[]),
    ("crates/tls", &[]),
    ("loadgen/common", &["tickring-ring", "tickring-tls"]),
    ("loadgen/conformance", &["loadgen-common"]),
    (
        "loadgen",
        &[
            "loadgen-common",
            "loadgen-conformance",
            "tickring-protocol",
            "tickring-ring",
            "tickring-tls",
        ],
    ),
];

/// Modules of the server use only what the walls allow.
#[test]
fn walls_stand() {
    let walls: BTreeMap<&str, &[&str]> = WALLS.iter().copied().collect();
    let mut complaints = Complaints::default();
    let mut seen = BTreeSet::new();
    for file in rust_files("src") {
        let module = module_of(&file);
        if module == "lib" {
            continue;
        }
        let Some(allowed) = walls.get(module.as_str()) else {
            complaints.add(&file, format!("the module `{module}` has no entry"));
            continue;
        };
        let text = without_comments(&fs::read_to_string(&file).unwrap());
        for used in used_modules(&text) {
            if used != module && !allowed.contains(&used.as_str()) {
                complaints.add(&file, format!("`{module}` uses `{used}`"));
            }
        }
        seen.insert(module);
    }
    let stale = walls.keys().filter(|module| !seen.contains(**module));
    assert_eq!(stale.count(), 0, "an entry of WALLS is about no module");
    complaints.assert_none(
        "WALLS in this file says which module may use which. Move what is needed to a module that both may use, or \
         pass it in as an argument",
    );
}

/// Crates depend on each other only downwards. Dev-dependencies are free.
#[test]
fn crates_depend_downwards() {
    let mut complaints = Complaints::default();
    for (folder, allowed) in CRATES {
        let file = Path::new(ROOT).join(folder).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        for (name, dependency) in dependencies.into_iter().flatten() {
            if dependency.get("path").is_some() && !allowed.contains(&name.as_str()) {
                complaints.add(&file, format!("depends on `{name}`"));
            }
        }
    }
    complaints.assert_none(
        "CRATES in this file says which crate may depend on which: the protocol, the ring and TLS are for anybody, \
         and the load generator must not need the server that it measures",
    );
}

/// A stranger who opens a file reads first what it is for.
#[test]
fn every_module_has_a_header() {
    let mut complaints = Complaints::default();
    for folder in SOURCES {
        for file in rust_files(folder) {
            let text = fs::read_to_string(&file).unwrap();
            if !text.starts_with("//! ") {
                complaints.add(&file, "");
            }
        }
    }
    complaints.assert_none(
        "a source file begins with `//!`: what it is for, and the invariant that it keeps",
    );
}

/// A file that nobody can keep in mind has a seam somewhere.
#[test]
fn no_file_is_long() {
    const LINES_MAX: usize = 700;
    let mut complaints = Complaints::default();
    for folder in SOURCES {
        for file in rust_files(folder) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            if lines > LINES_MAX {
                complaints.add(&file, format!("{lines} lines"));
            }
        }
    }
    complaints.assert_none(&format!(
        "a source file has at most {LINES_MAX} lines. Look for the part that has a name of its own, and give it a file"
    ));
}

/// `src/a/b.rs` and `src/a.rs` belong to the module `a`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(Path::new(ROOT).join("src")).unwrap();
    let first = inside.components().next().unwrap();
    let name = first.as_os_str().to_str().unwrap();
    name.strip_suffix(".rs").unwrap_or(name).to_owned()
}

/// The modules of this crate, and the other crates of tickring, that a text names.
fn used_modules(text: &str) -> BTreeSet<String> {
    let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
    let name = |text: &str| {
        text.chars()
            .take_while(|&byte| is_name(byte))
            .collect::<String>()
    };
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => _ = used.insert(name(rest)),
            Some(group) => {
                let end = group.find("};").unwrap_or(group.len());
                let mut depth = 0;
                for item in group[..end].split_inclusive([',', '{', '}']) {
                    if depth == 0 {
                        used.insert(name(item.trim_start()));
                    }
                    depth += item.matches('{').count();
                    depth -= item.matches('}').count().min(depth);
                }
            }
        }
    }
    for (at, _) in text.match_indices("tickring_") {
        let starts = !text[..at].ends_with(|byte: char| is_name(byte) || byte == '"');
        let word = name(&text[at..]);
        if starts && ["tickring_protocol", "tickring_ring", "tickring_tls"].contains(&&*word) {
            used.insert(word);
        }
    }
    used.remove("");
    used
}

fn without_comments(text: &str) -> String {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.fold(String::new(), |code, line| code + line + "\n")
}

/// Every Rust file beneath a folder of the repository, in a fixed order.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = files(folder);
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    assert!(
        !files.is_empty(),
        "{folder} has no Rust: the rule is about nothing"
    );
    files
}

const SOURCES: [&str; 8] = [
    "src",
    "crates",
    "loadgen/common",
    "loadgen/conformance",
    "loadgen/src",
    "loadgen/tests",
    "bench/src",
    "tests",
];
