//! The fuzz targets (`fuzz/src`) on the recorded inputs (`fuzz/corpus`), and on many that differ from these in a few
//! bytes. `fuzz/run` searches further.

#[path = "../fuzz/src/lib.rs"]
mod targets;

#[expect(dead_code, reason = "for rules, not for inputs")]
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use rules::{ROOT, files};

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files(&format!("fuzz/corpus/{target}"));
    let read = |file: PathBuf| (file.clone(), fs::read(file).expect("a file"));
    files.into_iter().map(read).collect()
}

/// Every recorded input, and every one that is cut short, holds what the target asserts.
#[test]
fn recorded_inputs_hold() {
    for (target, check) in targets::TARGETS {
        for (file, input) in corpus(target) {
            println!("{target}: {}", file.display());
            check(&input);
            let step = input.len() / 32 + 1;
            for length in (0..input.len()).step_by(step) {
                check(&input[..length]);
            }
        }
    }
}

/// Inputs that differ from recorded ones hold it too: flipped bits, parts removed, repeated and put elsewhere. The seed is
/// fixed, so that a failure is the same again.
#[test]
fn changed_inputs_hold() {
    for (target, check) in targets::TARGETS {
        let corpus = corpus(target);
        let mut random = Rng::with_seed(1);
        for round in 0..1_000 {
            let mut input = random.choice(&corpus).expect("an input").1.clone();
            for _ in 0..random.usize(1..4) {
                change(&mut input, &corpus, &mut random);
            }
            input.truncate(1 << 16);
            let outcome = std::panic::catch_unwind(|| check(&input));
            assert!(
                outcome.is_ok(),
                "{target}, round {round}: {}",
                input.escape_ascii()
            );
        }
    }
}

fn change(input: &mut Vec<u8>, corpus: &[(PathBuf, Vec<u8>)], random: &mut Rng) {
    if input.is_empty() {
        return input.push(random.u8(..));
    }
    let at = random.usize(..input.len());
    let end = (at + random.usize(1..32)).min(input.len());
    match random.u8(..6) {
        0 => input[at] ^= 1 << random.u8(..8),
        1 => input[at] = random.u8(..),
        2 => input.insert(at, random.u8(..)),
        3 => drop(input.drain(at..end)),
        4 => {
            let part = input[at..end].to_vec();
            let to = random.usize(..=input.len());
            input.splice(to..to, part);
        }
        _ => {
            let other = &random.choice(corpus).expect("an input").1;
            let from = random.usize(..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}

/// Each target has a binary for libFuzzer, its name in the manifest, and inputs of a few kilobytes.
#[test]
fn targets_are_complete() {
    const CORPUS_BYTES_MAX: u64 = 64 << 10;
    let folder = Path::new(ROOT).join("fuzz");
    let manifest: toml::Table = fs::read_to_string(folder.join("Cargo.toml"))
        .expect("a manifest")
        .parse()
        .expect("TOML");
    let bins = manifest["bin"].as_array().expect("binaries");
    let names: Vec<_> = bins.iter().map(|bin| bin["name"].as_str()).collect();
    let expected: Vec<_> = targets::TARGETS
        .iter()
        .map(|(name, _)| Some(*name))
        .collect();
    assert_eq!(names, expected);
    for (name, _) in targets::TARGETS {
        assert!(
            folder
                .join("fuzz_targets")
                .join(format!("{name}.rs"))
                .exists()
        );
        let sizes = corpus(name)
            .into_iter()
            .map(|(_, input)| input.len() as u64);
        let bytes: u64 = sizes.sum();
        assert!(bytes <= CORPUS_BYTES_MAX, "{name}: {bytes} bytes");
    }
}
