//! Settings that change while the server runs: the layers are read again, and what cannot change stays as it is.

use super::effective::{Effective, load};
use super::flags::Flags;
use super::{Config, ConfigError};
use std::ffi::OsString;

/// Reads the settings again, and knows those that are in force.
#[derive(Debug)]
pub struct Reloader {
    flags: Flags,
    environment: Vec<(OsString, OsString)>,
    running: Effective,
}

/// Settings that were read again and are valid.
#[derive(Debug)]
pub struct Reread {
    /// What is to be in force.
    pub config: Config,
    /// The keys of the settings that differ from those in force.
    pub changed: Vec<String>,
    /// The keys of those that differ and cannot change before the server is restarted.
    pub need_restart: Vec<String>,
    effective: Effective,
}

impl Reloader {
    /// Of a server that was started with these flags in this environment, where they yielded `running`.
    #[must_use]
    pub fn new(
        flags: Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        running: Effective,
    ) -> Self {
        Self {
            flags,
            environment: environment.into_iter().collect(),
            running,
        }
    }

    /// Reads the file again. Flags and environment are those of the start, since nobody can change them from outside.
    /// Nothing is in force yet.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn read(&self) -> Result<Reread, ConfigError> {
        let mut effective = load(&self.flags, self.environment.iter().cloned())?;
        // As the next start will see it: what that would refuse is refused now.
        effective.to_config()?;
        let need_restart = effective.keep_fixed(&self.running);
        Ok(Reread {
            config: effective.to_config()?,
            changed: effective.differences(&self.running),
            need_restart,
            effective,
        })
    }

    /// From now on these are in force.
    pub fn commit(&mut self, reread: Reread) {
        self.running = reread.effective;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A file of settings, and a server that was started from its first content.
    struct Running {
        file: PathBuf,
        reloader: Reloader,
    }

    impl Running {
        fn start(name: &str, text: &str, flags: &str) -> Self {
            let file = std::env::temp_dir().join(format!(
                "tickring-reload-{name}-{}.toml",
                std::process::id()
            ));
            std::fs::write(&file, text).unwrap();
            let line = format!("tickring serve --config {} {flags}", file.display());
            let flags = Flags::parse(line.split_whitespace().map(OsString::from)).unwrap();
            let running = load(&flags, []).unwrap();
            Self {
                file,
                reloader: Reloader::new(flags, [], running),
            }
        }

        fn reread(&self, text: &str) -> Result<Reread, ConfigError> {
            std::fs::write(&self.file, text).unwrap();
            self.reloader.read()
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.file);
        }
    }

    /// What differs is named once, flags still win, and what is committed is what later changes are compared with.
    #[test]
    fn changes_are_named() {
        let mut running = Running::start(
            "named",
            "origins = ['https://a']",
            "--idle-timeout-ms 60000",
        );
        let text = "origins = ['https://b']\nidle_timeout_ms = 70000\nsubscriptions_max = 5";
        let reread = running.reread(text).unwrap();
        assert_eq!(reread.changed, ["origins", "subscriptions_max"]);
        assert!(reread.need_restart.is_empty());
        assert_eq!(reread.config.idle_timeout_ms, 60_000);
        assert_eq!(reread.config.hub.subscriptions_max, 5);
        running.reloader.commit(reread);
        let reread = running.reread(text).unwrap();
        assert!(reread.changed.is_empty(), "{:?}", reread.changed);
    }

    /// What cannot change stays as it is, whatever else does, and is named.
    #[test]
    fn what_needs_a_restart_stays() {
        let running = Running::start("stays", "listen = '127.0.0.1:9001'", "");
        let reread = running
            .reread("listen = '127.0.0.1:9100'\nshards = 7\necho = true")
            .unwrap();
        assert_eq!(reread.need_restart, ["listen", "shards"]);
        assert_eq!(reread.changed, ["echo"]);
        assert_eq!(reread.config.listen.port(), 9001);
        assert!(reread.config.echo && reread.config.shards != 7);
    }

    /// Whether there are tokens, or TLS, is decided at the start; then all that belongs to them waits for the restart too.
    #[test]
    fn what_belongs_together_stays_together() {
        let running = Running::start("together", "", "");
        let text = "auth = 'required'\ntoken_keys = ['k']\ntls_listen = '127.0.0.1:1'\n\
                    tls_certificates = ['c']\ntls_keys = ['k']\ndashboard = true";
        let reread = running.reread(text).unwrap();
        assert_eq!(reread.changed, ["dashboard"]);
        let waiting = [
            "tls_listen",
            "tls_certificates",
            "tls_keys",
            "auth",
            "token_keys",
        ];
        assert_eq!(reread.need_restart, waiting);
        assert!(reread.config.tls.is_none());

        let running = Running::start("on", "auth = 'required'\ntoken_keys = ['k']", "");
        let reread = running
            .reread("auth = 'optional'\ntoken_keys = ['l']\nanonymous_subscribe = ['news.>']")
            .unwrap();
        assert_eq!(
            reread.changed,
            ["auth", "anonymous_subscribe", "token_keys"]
        );
        assert!(reread.need_restart.is_empty());
    }

    /// Feeds and keys of the API count as one setting each, and a secret that changes is noticed though it is not shown.
    #[test]
    fn tables_are_compared() {
        let tables = |secret: &str, digit: &str| {
            format!(
                "[[feed]]\nname = 'f'\nkind = 'websocket'\nurl = 'wss://h/'\ntopic = 'md.{{/s}}'\n\
                 subscribe = ['{secret}']\n[[api_key]]\nname = 'k'\nsha256 = '{}'\n",
                digit.repeat(64)
            )
        };
        let running = Running::start("tables", &tables("a", "0"), "");
        let changed = |secret, digit| running.reread(&tables(secret, digit)).unwrap().changed;
        assert!(changed("a", "0").is_empty());
        assert_eq!(changed("b", "0"), ["feed"]);
        assert_eq!(changed("a", "1"), ["api_key"]);
        assert_eq!(running.reread("").unwrap().changed, ["feed", "api_key"]);
    }

    /// A file that cannot be used changes nothing and is named with its place.
    #[test]
    fn bad_files_are_refused() {
        let running = Running::start("bad", "", "");
        for (text, said) in [
            ("idle_timeout_ms = 1", "out of range"),
            ("idle_timeout_ms = 20000", "taken for dead"),
            ("idle_timeout", "TOML"),
            ("idel_timeout_ms = 1", "did you mean"),
        ] {
            let error = running.reread(text).unwrap_err().to_string();
            assert!(
                error.contains(said) && !error.contains('\n'),
                "{text}: {error}"
            );
        }
        std::fs::remove_file(&running.file).unwrap();
        let error = running.reloader.read().unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
        std::fs::write(&running.file, "").unwrap();
        assert!(running.reloader.read().unwrap().changed.is_empty());
    }
}
