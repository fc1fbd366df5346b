//! Combines the layers of settings: one value per setting, and where it came from.

use super::ConfigError;
use super::access::{API_KEY, ApiKeyEntry, read_api_keys};
use super::error::nearest;
use super::feed::{FEED, FeedEntry, read_feeds};
use super::flags::{Command, Flags};
use super::product::{PRODUCT, ProductEntry, read_products};
use super::settings::{GATES, SETTINGS, Setting, groups};
use super::value::Value;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value came from.
#[derive(Clone, Debug)]
enum Source {
    Default,
    /// What `demo` adds to `serve`.
    Demo,
    File(PathBuf),
    Environment,
    Flag,
}

/// All settings with their effective values. Displays as a TOML file that yields the same settings again.
#[derive(Debug)]
pub struct Effective {
    pub(super) command: Command,
    /// In the order of [`SETTINGS`].
    values: Vec<(Value, Source)>,
    /// Of the file.
    pub(super) feeds: Vec<FeedEntry>,
    /// Of the file.
    pub(super) api_keys: Vec<ApiKeyEntry>,
    /// Of the file.
    pub(super) products: Vec<ProductEntry>,
    /// Where this user's programs keep their data, if the environment says so.
    pub(super) data_folder: Option<PathBuf>,
}

/// Applies the layers in order: flags override the environment, which overrides the file, which overrides the defaults.
///
/// # Errors
/// The first value that cannot be used; values of the lowest layer come first.
pub fn load(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Effective, ConfigError> {
    let mut effective = Effective::defaults(flags.command);
    // What is not UTF-8 cannot be valid, and is reported as the text it resembles.
    let all: Vec<(String, String)> = environment
        .into_iter()
        .map(|(name, value)| (lossy(name), lossy(value)))
        .collect();
    effective.data_folder = data_folder(&all);
    let (variables, _) = all
        .iter()
        .cloned()
        .partition::<Vec<_>, _>(|(name, _)| name.starts_with(PREFIX));
    let file = flags.config_file.clone().or_else(|| {
        let named = variables.iter().find(|(name, _)| name == CONFIG_VARIABLE);
        named.map(|(_, path)| PathBuf::from(path))
    });
    if let Some(path) = file {
        let value_of = |name: &str| {
            let variable = all.iter().find(|(other, _)| other == name);
            variable.map(|(_, value)| value.clone())
        };
        effective.take_file(&path, &value_of)?;
    }
    for (name, text) in &variables {
        effective.take_variable(name, text)?;
    }
    for (setting, texts) in &flags.texts {
        // Every text is checked by itself, so that the message shows the one that is wrong.
        for text in texts {
            effective.take_text(setting, text, Source::Flag)?;
        }
        effective.take_text(setting, &texts.join(","), Source::Flag)?;
    }
    Ok(effective)
}

impl Effective {
    /// The settings of a command with nothing set.
    pub(super) fn defaults(command: Command) -> Self {
        let value_of = |setting: &Setting| match (setting.flag, setting.default_value(command)) {
            ("echo" | "dashboard", value) if command == Command::Demo => (value, Source::Demo),
            (_, value) => (value, Source::Default),
        };
        Self {
            command,
            values: SETTINGS.iter().map(value_of).collect(),
            feeds: Vec::new(),
            api_keys: Vec::new(),
            products: Vec::new(),
            data_folder: None,
        }
    }

    /// `environment` yields the variables that feeds may name.
    fn take_file(
        &mut self,
        path: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.to_owned(),
            error,
        })?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::NotToml {
            path: path.to_owned(),
            line: 1 + error.span().map_or(0, |span| {
                text.as_bytes()[..span.start.min(text.len())]
                    .iter()
                    .filter(|&&byte| byte == b'\n')
                    .count()
            }),
            message: error.message().replace('\n', ", "),
        })?;
        for (key, value) in &table {
            if key == FEED {
                self.feeds = read_feeds(path, value, environment)?;
                continue;
            }
            if key == API_KEY {
                self.api_keys = read_api_keys(path, value, environment)?;
                continue;
            }
            if key == PRODUCT {
                self.products = read_products(path, value, environment)?;
                continue;
            }
            if let Some(error) = unknown_table(path, key, value) {
                return Err(error);
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key() == *key) else {
                return Err(unknown(path.display().to_string(), key, "", ""));
            };
            let source = Source::File(path.to_owned());
            match setting.kind.read_toml(value) {
                Ok(value) => self.set(setting, value, source),
                Err(problem) => {
                    return Err(bad_value(setting, &source, &value.to_string(), problem));
                }
            }
        }
        Ok(())
    }

    fn take_variable(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        if name == CONFIG_VARIABLE {
            return Ok(());
        }
        let key = name[PREFIX.len()..].to_ascii_lowercase();
        match SETTINGS.iter().find(|setting| setting.variable() == name) {
            Some(setting) => self.take_text(setting, text, Source::Environment),
            // Others put variables there too: Kubernetes has TICKRING_PORT and TICKRING_SERVICE_HOST
            // for a service of that name. Only what was surely meant for us is an error.
            None if nearest(&key, keys().iter().map(String::as_str)).is_some() => Err(unknown(
                "the environment".to_owned(),
                name,
                PREFIX,
                "unset it or ",
            )),
            None => Ok(()),
        }
    }

    fn take_text(
        &mut self,
        setting: &Setting,
        text: &str,
        source: Source,
    ) -> Result<(), ConfigError> {
        match setting.kind.read_text(text) {
            Ok(value) => {
                self.set(setting, value, source);
                Ok(())
            }
            Err(problem) => Err(bad_value(setting, &source, &format!("{text:?}"), problem)),
        }
    }

    fn set(&mut self, setting: &Setting, value: Value, source: Source) {
        self.values[position(setting.flag)] = (value, source);
    }

    /// The value of a setting.
    pub(super) fn value(&self, flag: &str) -> &Value {
        &self.values[position(flag)].0
    }

    /// That two settings cannot be together.
    pub(super) fn conflict(
        &self,
        first: &str,
        second: &str,
        problem: &'static str,
        remedy: &'static str,
    ) -> ConfigError {
        ConfigError::Conflict {
            first: self.place_of(first),
            second: self.place_of(second),
            problem,
            remedy,
        }
    }

    /// Takes the values of `running` for whatever cannot change while the server runs. Returns the keys of the settings that
    /// would have changed.
    pub(super) fn keep_fixed(&mut self, running: &Self) -> Vec<String> {
        // Whether there is TLS, or tokens, is decided at the start, and what belongs to it with it.
        let shut = GATES
            .iter()
            .filter(|(gate, _)| self.value(gate).is_off() != running.value(gate).is_off());
        let waiting: Vec<&str> = shut.map(|(_, group)| *group).collect();
        let mut kept = Vec::new();
        for ((setting, new), old) in SETTINGS.iter().zip(&mut self.values).zip(&running.values) {
            let is_fixed = setting.is_fixed() || waiting.contains(&setting.group);
            if is_fixed && new.0 != old.0 {
                *new = old.clone();
                kept.push(setting.key());
            }
        }
        kept
    }

    /// The keys of the settings, and the names of the tables, that differ.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let both = self.values.iter().zip(&other.values);
        let settings = SETTINGS.iter().zip(both);
        let mut keys: Vec<String> = settings
            .filter(|(_, (one, other))| one.0 != other.0)
            .map(|(setting, _)| setting.key())
            .collect();
        let feeds =
            |of: &Self| -> Vec<_> { of.feeds.iter().map(|one| one.config.clone()).collect() };
        if feeds(self) != feeds(other) {
            keys.push(FEED.to_owned());
        }
        let api_keys =
            |of: &Self| -> Vec<_> { of.api_keys.iter().map(|one| one.key.clone()).collect() };
        if api_keys(self) != api_keys(other) {
            keys.push(API_KEY.to_owned());
        }
        let products =
            |of: &Self| -> Vec<_> { of.products.iter().map(|one| one.product.clone()).collect() };
        if products(self) != products(other) {
            keys.push(PRODUCT.to_owned());
        }
        keys
    }

    /// Where the value of a setting is written, together with the value.
    pub(super) fn place_of(&self, flag: &str) -> String {
        let at = position(flag);
        let (value, source) = &self.values[at];
        place(&SETTINGS[at], source, &value.to_string())
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = self.values.iter();
        for (group, settings) in groups() {
            writeln!(formatter, "# {group}")?;
            for (setting, (value, source)) in settings.iter().zip(&mut values) {
                let assignment = format!("{} = {value}", setting.key());
                let origin = match source {
                    Source::Default => "default".to_owned(),
                    Source::Demo => "demo".to_owned(),
                    Source::File(path) => format!("file {}", one_line(&path.to_string_lossy())),
                    Source::Environment => format!("environment {}", setting.variable()),
                    Source::Flag => format!("flag --{}", setting.flag),
                };
                writeln!(formatter, "{assignment:<44} # {origin}")?;
            }
            writeln!(formatter)?;
        }
        let feeds = self.feeds.iter().map(|feed| (FEED, &feed.shown));
        let api_keys = self.api_keys.iter().map(|entry| (API_KEY, &entry.shown));
        let products = self.products.iter().map(|entry| (PRODUCT, &entry.shown));
        for (heading, shown) in feeds.chain(api_keys).chain(products) {
            writeln!(formatter, "[[{heading}]]")?;
            for line in shown {
                writeln!(formatter, "{:<44} # {}", line.assignment, line.origin)?;
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}

/// `$XDG_DATA_HOME`, or `~/.local/share`, as the XDG Base Directory Specification has it. A path that is not absolute does
/// not count.
fn data_folder(environment: &[(String, String)]) -> Option<PathBuf> {
    let folder_of = |name: &str| {
        let (_, value) = environment.iter().find(|(other, _)| other == name)?;
        Some(PathBuf::from(value)).filter(|path| path.is_absolute())
    };
    folder_of("XDG_DATA_HOME").or_else(|| Some(folder_of("HOME")?.join(".local/share")))
}

fn position(flag: &str) -> usize {
    SETTINGS
        .iter()
        .position(|setting| setting.flag == flag)
        .unwrap_or_else(|| unreachable!("{flag} is in the table"))
}

fn keys() -> Vec<String> {
    SETTINGS.iter().map(Setting::key).collect()
}

/// Where a value is written, as the operator would look for it.
fn place(setting: &Setting, source: &Source, value: &str) -> String {
    let value = one_line(value);
    match source {
        Source::Default | Source::Demo => format!("the default {} = {value}", setting.key()),
        Source::File(path) => format!("{}: {} = {value}", path.display(), setting.key()),
        Source::Environment => format!("environment variable {}={value}", setting.variable()),
        Source::Flag => format!("--{} {value}", setting.flag),
    }
}

fn bad_value(setting: &Setting, source: &Source, value: &str, problem: String) -> ConfigError {
    ConfigError::BadValue {
        place: place(setting, source, value),
        problem,
        remedy: setting.kind.remedy(),
    }
}

/// What is wrong if this is a table, with the settings that might have been meant by it.
fn unknown_table(path: &Path, key: &str, value: &toml::Value) -> Option<ConfigError> {
    let name = match value {
        toml::Value::Table(_) => format!("[{key}]"),
        toml::Value::Array(items) if items.first().is_some_and(toml::Value::is_table) => {
            format!("[[{key}]]")
        }
        _ => return None,
    };
    let keys = keys();
    let prefix = format!("{key}_");
    let meant = keys.iter().filter(|setting| setting.starts_with(&prefix));
    let meant: Vec<&str> = meant.take(3).map(String::as_str).collect();
    let remedy = match nearest(key, [FEED, API_KEY, PRODUCT].into_iter()) {
        Some(near) => format!("did you mean [[{near}]]?"),
        // It is rather a setting whose value is of the wrong type.
        None if meant.len() < 2 && keys.iter().any(|setting| setting == key) => return None,
        None if !meant.is_empty() => {
            let meant = meant.join(", ");
            format!("settings stand above all tables, such as {meant}")
        }
        None => "settings stand above all tables, and tickring check prints them".to_owned(),
    };
    Some(ConfigError::UnknownTable {
        place: path.display().to_string(),
        name,
        remedy,
    })
}

/// An unknown name, with the nearest known one in the same spelling.
fn unknown(place: String, name: &str, prefix: &str, or: &str) -> ConfigError {
    let bare = name[prefix.len()..].to_ascii_lowercase().replace('-', "_");
    let mut keys = keys();
    if prefix.is_empty() {
        keys.extend([FEED, API_KEY, PRODUCT].map(str::to_owned));
    }
    let remedy = match nearest(&bare, keys.iter().map(String::as_str)) {
        Some(near) if prefix.is_empty() => format!("did you mean {near:?}?"),
        Some(near) => format!("{or}use {prefix}{}", near.to_ascii_uppercase()),
        None => "tickring check prints all of them".to_owned(),
    };
    ConfigError::Unknown {
        place,
        name: name.to_owned(),
        remedy,
    }
}

/// A text that may appear within a line: without line ends, and not too long.
pub(super) fn one_line(text: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    let mut shown: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(CHARACTERS_MAX)
        .collect();
    if text.chars().nth(CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}

/// Every environment variable of tickring begins with this.
const PREFIX: &str = "TICKRING_";
/// The variable that names the file.
const CONFIG_VARIABLE: &str = "TICKRING_CONFIG";

#[cfg(test)]
mod tests {
    use super::super::{Config, Demo, FeedKind};
    use super::*;

    /// The settings of the only feed, the simulated exchange.
    fn exchange(config: &Config) -> Demo {
        match &config.feeds[..] {
            [feed] => match feed.kind {
                FeedKind::Exchange(demo) => demo,
                FeedKind::Replay(_) | FeedKind::WebSocket(_) => panic!("{feed:?}"),
            },
            feeds => panic!("{feeds:?}"),
        }
    }

    fn load_with(line: &str, variables: &[(&str, &str)]) -> Result<Effective, ConfigError> {
        let arguments = line.split_whitespace().map(OsString::from);
        let flags = Flags::parse(arguments).expect("the line is well-formed");
        load(
            &flags,
            variables
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
    }

    fn refusal(line: &str, variables: &[(&str, &str)]) -> String {
        let loaded = load_with(line, variables).and_then(|effective| effective.to_config());
        let text = loaded.expect_err("it is refused").to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    }

    /// The defaults are valid, and they are those that the documentation of [`Config`] states.
    #[test]
    fn defaults_are_valid() {
        let config = Config::default();
        assert_eq!(config.listen.to_string(), "127.0.0.1:9001");
        assert_eq!(config.api_listen.to_string(), "127.0.0.1:9002");
        assert!(!config.echo && !config.dashboard && config.feeds.is_empty() && config.pin);
        assert!(config.shards >= 1 && config.send_buffer_bytes.is_none());
    }

    /// `demo` is `serve` with echo, dashboard and exchange, each of which can still be set.
    #[test]
    fn demo_adds_to_serve() {
        let config = load_with("tickring demo --echo=false --seed 7", &[])
            .unwrap()
            .to_config()
            .unwrap();
        assert!(!config.echo && config.dashboard);
        let demo = Demo {
            symbols: 200,
            rate: 2_000,
            seed: 7,
        };
        assert_eq!(exchange(&config), demo);
    }

    /// The ends of every range make a valid configuration, so no range is wider than its type.
    #[test]
    fn ranges_fit_their_types() {
        for setting in SETTINGS {
            let Some((min, max)) = setting.kind.range() else {
                continue;
            };
            for number in [min, max] {
                let line = format!("tickring demo --{} {number}", setting.flag);
                let mut effective = load_with(&line, &[]).unwrap();
                for (flag, other) in [
                    ("ping-interval-ms", "10"),
                    ("idle-timeout-ms", "86400000"),
                    ("shards", "1"),
                ] {
                    if flag != setting.flag {
                        let at = &SETTINGS[position(flag)];
                        effective.take_text(at, other, Source::Flag).unwrap();
                    }
                }
                let config = effective.to_config();
                // No other time can be found to go with these two.
                let is_alone = ["ping-interval-ms 86400000", "idle-timeout-ms 10"]
                    .contains(&line[16..].trim());
                assert_eq!(config.is_err(), is_alone, "{line}");
            }
        }
    }

    /// A flag overrides the environment, and lists are replaced, not joined.
    #[test]
    fn flags_beat_the_environment() {
        let variables = [
            ("TICKRING_RATE", "5"),
            ("TICKRING_ORIGINS", "http://a,http://b"),
            ("TICKRING_SEED", "9"),
        ];
        let effective = load_with("tickring demo --rate 6 --origins http://c", &variables).unwrap();
        let config = effective.to_config().unwrap();
        let demo = exchange(&config);
        assert_eq!((demo.rate, demo.seed), (6, 9));
        let origins = config.origins.patterns().iter().map(ToString::to_string);
        assert_eq!(origins.collect::<Vec<_>>(), ["http://c"]);
        let text = effective.to_string();
        assert!(
            text.contains("# flag --rate") && text.contains("# environment TICKRING_SEED"),
            "{text}"
        );
    }

    /// Every mistake is reported with its place, its value and the remedy, in one line.
    #[test]
    fn mistakes_name_place_value_and_remedy() {
        for (flags, said) in [
            (
                "--shards many",
                r#"--shards "many": not a whole number; give auto or a whole number from 1 to 256"#,
            ),
            (
                "--shards 0",
                r#"--shards "0": out of range; give auto or a whole number from 1 to 256"#,
            ),
            (
                "--rate -1",
                r#"--rate "-1": out of range; give a whole number from 1 to 10000000"#,
            ),
            (
                "--listen localhost",
                r#"--listen "localhost": not an IP address with a port; give IP:PORT, such as 127.0.0.1:9001 or [::1]:9001"#,
            ),
            (
                "--io kqueue",
                r#"--io "kqueue": not one of the choices; give auto, uring or epoll"#,
            ),
            (
                "--echo=yes",
                r#"--echo "yes": neither true nor false; give true or false"#,
            ),
            (
                "--compression-level 10",
                r#"--compression-level "10": out of range; give a whole number from 1 to 9"#,
            ),
            (
                "--server-max-window-bits 8",
                r#"--server-max-window-bits "8": out of range; give a whole number from 9 to 15"#,
            ),
            (
                "--receive-buffers-max 1000",
                r#"--receive-buffers-max "1000": not a power of two; give a power of two from 2 to 32768"#,
            ),
            (
                "--message-bytes-max 1MB",
                r#"--message-bytes-max "1MB": not a size; give a size from 1 to 1GiB"#,
            ),
            (
                "--origins http://a --origins desk",
                r#"--origins "desk": "desk" is not an origin; give scheme://host or scheme://host:port without a path, such as https://desk.example or https://*.desk.example"#,
            ),
            (
                "--log inof",
                r#"--log "inof": "inof" is not a level; give off, error, warn, info, debug or trace, or target=level pairs"#,
            ),
            (
                "--api-listen 127.0.0.1:9001",
                r#"the default listen = "127.0.0.1:9001" and --api-listen "127.0.0.1:9001": two ports are the same; give each a port of its own"#,
            ),
            (
                "--listen 0.0.0.0:9002",
                r#"--listen "0.0.0.0:9002" and the default api_listen = "127.0.0.1:9002": two ports are the same; give each a port of its own"#,
            ),
            (
                "--idle-timeout-ms 20000",
                "the default ping_interval_ms = 25000 and --idle-timeout-ms 20000: a quiet client is taken for dead before it is pinged; make the ping interval the shorter, best under half",
            ),
            (
                "--replay /nowhere.jsonl",
                r#"--replay "/nowhere.jsonl": cannot be read: No such file or directory (os error 2); give the path of a file that tickring record has written"#,
            ),
            (
                "--speed 0",
                r#"--speed "0": out of range; give a number from 0.001 to 1000000, or max"#,
            ),
            (
                "--connections-max 1 --shards 2",
                "--connections-max 1 and --shards 2: there are fewer connections than shards to share them; allow more connections or run fewer shards",
            ),
        ] {
            assert_eq!(refusal(&format!("tickring demo {flags}"), &[]), said);
        }
        let pattern = refusal("tickring serve --client-publish a..b", &[]);
        assert!(
            pattern.starts_with(r#"--client-publish "a..b": "a..b" "#),
            "{pattern}"
        );
        for (name, value, said) in [
            (
                "TICKRING_PIN",
                "1",
                r#"environment variable TICKRING_PIN="1": neither true nor false; give true or false"#,
            ),
            (
                "TICKRING_LISEN",
                "x",
                r#"the environment: there is no setting "TICKRING_LISEN"; unset it or use TICKRING_LISTEN"#,
            ),
        ] {
            assert_eq!(refusal("tickring serve", &[(name, value)]), said);
        }
        let long = refusal("tickring serve", &[("TICKRING_IO", &"x\n".repeat(500))]);
        assert!(long.len() < 250, "{long}");
    }

    /// Variables that Kubernetes sets for a service called tickring are ignored.
    #[test]
    fn foreign_variables_are_left_alone() {
        let foreign = [
            ("TICKRING_PORT", "tcp://10.0.0.1:9001"),
            ("TICKRING_SERVICE_HOST", "10.0.0.1"),
            ("TICKRING_PORT_9001_TCP_PROTO", "tcp"),
            ("TICKRING_", ""),
        ];
        assert!(load_with("tickring serve", &foreign).is_ok());
    }
}
