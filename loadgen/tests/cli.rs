//! The command line from outside: its output and its exit status.

mod support;

use support::{Run, loadgen};

fn run(arguments: &[&str]) -> Run {
    Run::of(loadgen(arguments).output().expect("the program starts"))
}

/// A wrong command line is one line with the name of the program, and status 2.
#[test]
fn mistakes_take_one_line() {
    let url = "ws://127.0.0.1:9/";
    for (arguments, said) in [
        (&[][..], "no command is given; the commands are echo,"),
        (&["ehco", url], "did you mean echo?"),
        (&["echo"], "<URL> is missing"),
        (
            &["echo", url, "--conections", "5"],
            "did you mean --connections?",
        ),
        (
            &["echo", url, "-c", "many"],
            "--connections \"many\": not a whole number",
        ),
        (
            &["echo", url, "--io", "kqueue"],
            "must be auto, uring or epoll",
        ),
        (&["echo", url, "--rate"], "--rate: no value is given"),
        (
            &["fanout", url, "--rate", "1", "--rate", "2"],
            "--rate is given more than once",
        ),
        (
            &["echo", url, "--connect-timeout", "0"],
            "--connect-timeout 0: nothing could be connected",
        ),
        (
            &["fanout", url, "--burst-timeout", "0"],
            "--burst-timeout 0: no burst could arrive",
        ),
        (
            &["echo", url, "--json", "/tmp/same", "--html", "/tmp/./same"],
            "--json and --html: /tmp/./same is one file",
        ),
        (
            &["replay", "feed.csv", url, "-d", "300ms"],
            "--duration: the feed says what is published and when",
        ),
        (
            &["conformance", url, "--cases", ""],
            "--cases \"\": no such case",
        ),
        (
            &["conformance", url, "--once"],
            "--once: belongs to --listen",
        ),
    ] {
        let run = run(arguments);
        assert_eq!(run.status, 2, "{arguments:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{arguments:?}");
        assert_eq!(
            run.stderr.lines().count(),
            1,
            "{arguments:?}: {}",
            run.stderr
        );
        assert!(
            run.stderr.starts_with("loadgen: ") && run.stderr.contains(said),
            "{arguments:?}: {}",
            run.stderr
        );
    }
}

/// Help and version are asked for, so they are output and not an error.
#[test]
fn help_is_output() {
    for (arguments, said) in [
        (&["--help"][..], "Exit status:"),
        (
            &["--version"],
            concat!("loadgen ", env!("CARGO_PKG_VERSION")),
        ),
        (&["echo", "--help"], "--connections <N>"),
        (&["help", "replay"], "--speed <FACTOR>"),
    ] {
        let run = run(arguments);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{arguments:?}");
        assert!(run.stdout.contains(said), "{arguments:?}: {}", run.stdout);
    }
}

/// Help that does not get where it was to go is a failure, as a result is.
#[test]
fn help_that_is_lost() {
    for arguments in [&["--help"][..], &["echo", "--help"], &["--version"]] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut command = loadgen(arguments);
        command.stdout(full.expect("Linux has it"));
        let run = Run::of(command.output().expect("the program starts"));
        assert_eq!(run.status, 1, "{arguments:?}: {}", run.stderr);
        assert!(
            run.stderr
                .starts_with("loadgen: writing to the standard output: "),
            "{}",
            run.stderr
        );
    }
}
