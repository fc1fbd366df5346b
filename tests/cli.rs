//! The command line from outside: its output and its exit status.
//!
//! Nothing here starts a server.

use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs the program with these arguments and no variables but these.
fn tickring(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let inherited = std::env::vars_os().filter(|(name, _)| name != "RUST_BACKTRACE");
    let inherited = inherited.filter(|(name, _)| !name.to_string_lossy().starts_with("TICKRING_"));
    Command::new(env!("CARGO_BIN_EXE_tickring"))
        .args(arguments)
        .env_clear()
        .envs(inherited)
        .envs(variables.iter().copied())
        .output()
        .expect("the program was built")
}

/// The single line on standard error of a run that ends with status 2 and prints nothing else.
fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = tickring(arguments, variables);
    let said = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(said.matches('\n').count(), 1, "{said}");
    let line = said
        .strip_prefix("tickring: ")
        .expect("it names the program");
    line.trim_end().to_owned()
}

/// A file of settings that is there while this lives.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("tickring-cli-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("the temporary folder can be written to");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("the path is text")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The effective settings that `check` prints.
fn checked(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = tickring(&[&["check"], arguments].concat(), variables);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    String::from_utf8(output.stdout).expect("it is text")
}

/// The settings of a file of settings, without where they came from.
fn settings(text: &str) -> toml::Table {
    toml::from_str(text).expect("check prints TOML")
}

/// A wrong command line ends with one line that names the flag and the remedy.
#[test]
fn bad_flags_are_named() {
    for (arguments, said) in [
        (
            &[][..],
            "no command is given; the commands are demo, serve, check, health, usage and record (tickring --help)",
        ),
        (
            &["serv"],
            "there is no command \"serv\"; the commands are demo, serve, check, health, usage and record (tickring --help)",
        ),
        (
            &["serve", "--lissen", "x"],
            "there is no flag --lissen here; did you mean --listen?",
        ),
        (
            &["serve", "--shards", "0"],
            "--shards \"0\": out of range; give auto or a whole number from 1 to 256",
        ),
        (
            &["demo", "--compression-level=0"],
            "--compression-level \"0\": out of range; give a whole number from 1 to 9",
        ),
    ] {
        assert_eq!(refusal(arguments, &[]), said);
    }
}

/// A wrong variable ends with one line that names it and the remedy.
#[test]
fn bad_variables_are_named() {
    for (name, value, said) in [
        (
            "TICKRING_LISTEN",
            "9001",
            "environment variable TICKRING_LISTEN=\"9001\": not an IP address with a port; give IP:PORT, such as 127.0.0.1:9001 or [::1]:9001",
        ),
        (
            "TICKRING_API_LISEN",
            "x",
            "the environment: there is no setting \"TICKRING_API_LISEN\"; unset it or use TICKRING_API_LISTEN",
        ),
        (
            "TICKRING_CONFIG",
            "/nowhere.toml",
            "/nowhere.toml: cannot be read: No such file or directory (os error 2); give the path of a TOML file to --config or TICKRING_CONFIG",
        ),
    ] {
        assert_eq!(refusal(&["serve"], &[(name, value)]), said);
    }
}

/// A wrong file ends with one line that names the file, the key, the value and the remedy.
#[test]
fn bad_files_are_named() {
    for (name, text, said) in [
        (
            "key",
            "lisen = 1",
            "FILE: there is no setting \"lisen\"; did you mean \"listen\"?",
        ),
        (
            "dash",
            "api-listen = 1",
            "FILE: there is no setting \"api-listen\"; did you mean \"api_listen\"?",
        ),
        (
            "strange",
            "colour = 1",
            "FILE: there is no setting \"colour\"; tickring check prints all of them",
        ),
        (
            "table",
            "[tls]\ncertificate = 'a.pem'",
            "FILE: there is no table [tls]; settings stand above all tables, such as tls_listen, tls_certificates, tls_keys",
        ),
        (
            "unknown-table",
            "[limits]\nconnections_max = 5",
            "FILE: there is no table [limits]; settings stand above all tables, and tickring check prints them",
        ),
        (
            "plural",
            "[[products]]\nname = 'a'",
            "FILE: there is no table [[products]]; did you mean [[product]]?",
        ),
        (
            "list-of-tables",
            "tls_keys = [{ file = 'a.pem' }]",
            "FILE: tls_keys = [{ file = \"a.pem\" }]: a list of something else than strings; give paths, such as /etc/tickring/server.pem",
        ),
        (
            "type",
            "shards = true",
            "FILE: shards = true: of the wrong type (boolean); give auto or a whole number from 1 to 256",
        ),
        (
            "quoted",
            "rate = \"5\"",
            "FILE: rate = \"5\": of the wrong type (string); give a whole number from 1 to 10000000",
        ),
        (
            "switch",
            "echo = \"true\"",
            "FILE: echo = \"true\": of the wrong type (string); give true or false",
        ),
        (
            "range",
            "close_timeout_ms = -5",
            "FILE: close_timeout_ms = -5: out of range; give a whole number from 10 to 86400000",
        ),
        (
            "list",
            "origins = \"https://a\"",
            "FILE: origins = \"https://a\": of the wrong type (string); give scheme://host or scheme://host:port without a path, such as https://desk.example or https://*.desk.example",
        ),
        (
            "item",
            "origins = [\"https://a/\"]",
            "FILE: origins = [\"https://a/\"]: \"https://a/\" is not an origin; give scheme://host or scheme://host:port without a path, such as https://desk.example or https://*.desk.example",
        ),
        (
            "table",
            "[log]\na = 1",
            "FILE: log = { a = 1 }: of the wrong type (table); give off, error, warn, info, debug or trace, or target=level pairs",
        ),
        (
            "ports",
            "api_listen = \"127.0.0.1:9001\"",
            "the default listen = \"127.0.0.1:9001\" and FILE: api_listen = \"127.0.0.1:9001\": two ports are the same; give each a port of its own",
        ),
    ] {
        let file = File::new(name, text);
        let line = refusal(&["serve", "--config", file.path()], &[]);
        assert_eq!(line.replace(file.path(), "FILE"), said);
    }
    let file = File::new("syntax", "shards = 2\nlisten = \n");
    let line = refusal(&["check", "--config", file.path()], &[]);
    assert!(
        line.starts_with(&format!("{}, line 2: not valid TOML: ", file.path())),
        "{line}"
    );
    let line = refusal(&["check", "--config", "/"], &[]);
    assert!(line.starts_with("/: cannot be read: "), "{line}");
}

/// Flags beat the environment, which beats the file, which beats the defaults; `check` says which did.
#[test]
fn layers_are_in_order() {
    let file = File::new("layers", "rate = 1\nseed = 1\nsymbols = 1\nlog = \"warn\"");
    let variables = [
        ("TICKRING_RATE", "2"),
        ("TICKRING_SEED", "2"),
        ("TICKRING_CONFIG", file.path()),
    ];
    let text = checked(&["--rate", "3"], &variables);
    for (setting, origin) in [
        ("rate = 3", "flag --rate"),
        ("seed = 2", "environment TICKRING_SEED"),
        ("symbols = 1", &format!("file {}", file.path())),
        ("echo = false", "default"),
    ] {
        let line = text.lines().find(|line| line.starts_with(setting));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!("# {origin}"))),
            "{setting}: {text}"
        );
    }
}

/// What `check` prints is a file that `check` prints again, whatever was set.
#[test]
fn effective_settings_can_be_fed_back() {
    let unusual = [
        "--listen",
        "[::1]:0",
        "--origins",
        "https://a",
        "--origins",
        "http://b:8080",
        "--echo",
        "--client-publish",
        "chat.*",
        "--client-publish",
        "up.>",
        "--send-buffer-bytes",
        "3000",
        "--message-bytes-max",
        "1MiB",
        "--log",
        "info,tickring=debug",
        "--log-format",
        "json",
        "--seed",
        "9223372036854775807",
        "--shards",
        "3",
        "--pin=false",
        "--compression",
        "off",
    ];
    for arguments in [&[][..], &unusual] {
        let first = checked(arguments, &[]);
        let file = File::new(&format!("round-{}", arguments.len()), &first);
        let second = checked(&["--config", file.path()], &[]);
        assert_eq!(settings(&first), settings(&second), "{second}");
        let origins = second.lines().filter(|line| line.contains(" = "));
        for line in origins {
            assert!(line.ends_with(&format!("# file {}", file.path())), "{line}");
        }
    }
    let table = settings(&checked(&unusual, &[]));
    assert_eq!(table["origins"].as_array().map(Vec::len), Some(2));
    assert_eq!(table["seed"].as_integer(), Some(i64::MAX));
}

/// `check` reads the certificates of the TLS port: what the server could not use ends with one line that names the file,
/// and what it would use with a warning has one here.
#[test]
fn certificates_are_checked() {
    let names = vec!["localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names.clone()).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(names.clone()).expect("a certificate");
    let mut params = rcgen::CertificateParams::new(names).expect("names");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = params
        .self_signed(&made.signing_key)
        .expect("a certificate");
    let chain = File::new("chain", &made.cert.pem());
    let key = File::new("key", &made.signing_key.serialize_pem());
    let other_key = File::new("other-key", &other.signing_key.serialize_pem());
    let expired = File::new("expired", &expired.pem());
    let with = |chain: &File, key: &str| {
        let flags = ["check", "--tls-listen", "127.0.0.1:9443"].map(str::to_owned);
        let files = ["--tls-certificates", chain.path(), "--tls-keys", key].map(str::to_owned);
        [&flags[..], &files].concat()
    };
    let run = |line: &[String]| {
        let words: Vec<_> = line.iter().map(String::as_str).collect();
        tickring(&words, &[])
    };
    let refused = |line: &[String]| {
        let words: Vec<_> = line.iter().map(String::as_str).collect();
        refusal(&words, &[])
    };
    let good = run(&with(&chain, key.path()));
    assert!(good.status.success() && good.stderr.is_empty(), "{good:?}");
    assert_eq!(
        refused(&with(&chain, "/nowhere.pem")),
        "cannot read /nowhere.pem: No such file or directory (os error 2); give a file that the server's user may read"
    );
    assert_eq!(
        refused(&with(&chain, other_key.path())),
        format!(
            "{}: not the key of {}; give the key that the certificate was made for",
            other_key.path(),
            chain.path()
        )
    );
    assert_eq!(
        refused(&with(&key, key.path())),
        format!(
            "{}: no certificate in it; give a certificate chain in PEM, the server's own certificate first",
            key.path()
        )
    );
    let output = run(&with(&expired, key.path()));
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !output.stdout.is_empty());
    let start = format!(
        "tickring: warning: the certificate {} has expired",
        expired.path()
    );
    assert!(warning.starts_with(&start), "{warning}");
}

/// `serve` makes no certificate, and says so rather than serving without TLS.
#[test]
fn only_the_demo_makes_a_certificate() {
    let file = File::new("demo-tls", "tls = true");
    let line = refusal(&["serve", "--config", file.path()], &[]);
    assert!(
        line.ends_with("give tls_listen, tls_certificates and tls_keys instead"),
        "{line}"
    );
    let said = refusal(&["demo", "--tls"], &[("HOME", ""), ("XDG_DATA_HOME", "")]);
    assert!(
        said.ends_with("set the environment variable HOME or XDG_DATA_HOME"),
        "{said}"
    );
}

/// Help and version are asked for, so they are output and not an error.
#[test]
fn help_is_output() {
    for (arguments, said) in [
        (&["--help"][..], "Examples:"),
        (
            &["--version"],
            concat!("tickring ", env!("CARGO_PKG_VERSION")),
        ),
        (&["demo", "--help"], "--symbols <N>"),
        (&["serve", "-h"], "--api-listen <ADDR:PORT>"),
    ] {
        let output = tickring(arguments, &[]);
        assert!(output.status.success() && output.stderr.is_empty());
        let text = String::from_utf8(output.stdout).expect("it is text");
        assert!(text.contains(said), "{text}");
    }
}
