//! Any text as a file of settings, or as the value of one setting.
//!
//! What is accepted, printed and read again is the same. Only secrets are not printed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use tickring::config::{self, ConfigError, Effective, Flags};

pub fn check(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    // A feed's authorities are read from a file that is named, and these have no end or no bytes.
    if ["/dev/", "/proc/", "/sys/", "\\"]
        .iter()
        .any(|part| text.contains(part))
    {
        return;
    }
    let loaded = if *choice == b'f' {
        load_file(text)
    } else {
        let name = &VARIABLES[usize::from(*choice) % VARIABLES.len()];
        if text.contains('\0') {
            return;
        }
        config::load(&flags(None), [(name.into(), text.into())])
    };
    let effective = match loaded {
        Ok(effective) => effective,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let is_valid = effective.to_config().is_ok();
    let printed = effective.to_string();
    let again = load_file(&printed.replace("<redacted>", DIGEST))
        .unwrap_or_else(|error| panic!("{error} in\n{printed}"));
    assert_eq!(again.to_config().is_ok(), is_valid, "{printed}");
    assert_eq!(values(&again.to_string()), values(&printed));
}

/// Stands for what is not printed.
const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn load_file(text: &str) -> Result<Effective, ConfigError> {
    let file = file();
    std::fs::write(&file, text).expect("a file");
    config::load(&flags(Some(file)), [("TOKEN".into(), "secret".into())])
}

/// One for each thread: a test may run several targets at once.
fn file() -> PathBuf {
    let thread = format!("{:?}", std::thread::current().id());
    let number: String = thread.chars().filter(char::is_ascii_digit).collect();
    let name = format!("tickring-fuzz-{}-{number}.toml", std::process::id());
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    folder.join(name)
}

fn flags(file: Option<PathBuf>) -> Flags {
    let mut words: Vec<OsString> = vec!["tickring".into(), "check".into()];
    if let Some(file) = file {
        words.extend(["--config".into(), file.into()]);
    }
    Flags::parse(words).expect("a command line")
}

/// The settings of a printed file without what it says of their origin.
fn values(printed: &str) -> Vec<&str> {
    let lines = printed
        .lines()
        .map(|line| line.split(" # ").next().expect("a line").trim());
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// The names of all variables of the environment that are settings.
static VARIABLES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let defaults = config::load(&flags(None), []).expect("the defaults");
    let printed = defaults.to_string();
    let keys = values(&printed)
        .into_iter()
        .filter_map(|line| line.split_once(" = "));
    let names = keys.map(|(key, _)| format!("TICKRING_{}", key.to_ascii_uppercase()));
    names.collect()
});
