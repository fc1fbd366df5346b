//! Finds out whether io_uring can be used here and, if not, why and what to do about it.
//!
//! The answer comes from making a real ring with everything that the engine needs. Version numbers prove nothing where
//! containers filter system calls.

use std::fs;
use std::io;

use super::Options;
use super::uring::Uring;

/// An engine for real sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// [`super::uring::Uring`].
    Uring,
    /// [`super::epoll::Epoll`].
    Epoll,
}

/// Why a ring could not be made; each reason states its remedy.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The administrator has switched io_uring off.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {level}); \
         remedy: sysctl -w kernel.io_uring_disabled=0{}, or --io epoll",
        if *.level == 1 { ", or run with CAP_SYS_ADMIN or in the group of kernel.io_uring_group" }
        else { "" }
    )]
    Disabled {
        /// 1: for unprivileged processes. 2: for all.
        level: u8,
    },
    /// A filter refuses the system calls.
    #[error(
        "io_uring is refused by a filter (EPERM): a container's seccomp profile or a security module; \
         remedy: allow io_uring_setup, io_uring_enter and io_uring_register in the profile, or \
         --io epoll"
    )]
    Refused,
    /// The kernel, or a substitute for it, does not know the system calls.
    #[error(
        "this kernel has no io_uring (ENOSYS): older than Linux 5.1, built without it, or a sandbox \
         such as gVisor; remedy: Linux 6.1 or later, or --io epoll"
    )]
    Missing,
    /// The kernel lacks a feature that the engine needs.
    #[error(
        "the io_uring of this kernel lacks what is needed (EINVAL): SINGLE_ISSUER, DEFER_TASKRUN or \
         provided-buffer rings; remedy: Linux 6.1 or later, or --io epoll"
    )]
    TooOld,
    /// Memory cannot be locked or allocated.
    #[error(
        "io_uring has no memory (ENOMEM): the limit of locked memory is too low; \
         remedy: ulimit -l unlimited (systemd: LimitMEMLOCK=infinity), fewer shards, or --io epoll"
    )]
    NoMemory,
    /// No descriptor is free for the ring or for its table of direct descriptors.
    #[error(
        "no descriptor is left for io_uring (EMFILE, ENFILE); \
         remedy: ulimit -n 1048576 (systemd: LimitNOFILE=1048576)"
    )]
    NoDescriptors,
    /// Any other error.
    #[error("io_uring cannot be set up: {0}; remedy: --io epoll")]
    Other(#[source] io::Error),
}

impl RingError {
    /// The reason that an error of setting up a ring stands for.
    pub(super) fn from_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => match disabled_level() {
                0 => Self::Refused,
                level => Self::Disabled { level },
            },
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Self::TooOld,
            Some(libc::ENOMEM) => Self::NoMemory,
            Some(libc::EMFILE | libc::ENFILE) => Self::NoDescriptors,
            _ => Self::Other(error),
        }
    }
}

/// `kernel.io_uring_disabled`; 0 where the kernel has no such setting.
fn disabled_level() -> u8 {
    let level = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    level
        .ok()
        .and_then(|level| level.trim().parse().ok())
        .unwrap_or(0)
}

/// Makes a small ring with everything that the engine needs, and drops it.
///
/// # Errors
/// Why io_uring cannot be used.
pub fn probe() -> Result<(), RingError> {
    let options = Options {
        connections_max: 1,
        receive_buffers_max: 1,
        receive_buffers_start: 1,
        entries: 8,
        ..Options::default()
    };
    Uring::new(options).map(drop)
}

/// The engine to use: `requested` or, with `None`, io_uring if it works. The second value is a warning to print if
/// io_uring does not work and epoll is used instead.
///
/// # Errors
/// When io_uring was requested and cannot be used.
pub fn choose(requested: Option<Engine>) -> Result<(Engine, Option<String>), RingError> {
    match requested {
        Some(Engine::Epoll) => Ok((Engine::Epoll, None)),
        Some(Engine::Uring) => probe().map(|()| (Engine::Uring, None)),
        None => Ok(match probe() {
            Ok(()) => (Engine::Uring, None),
            Err(error) => {
                let warning =
                    format!("falling back to the epoll engine, which costs more: {error}");
                (Engine::Epoll, Some(warning))
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each cause has its own line, with a remedy in it.
    #[test]
    fn causes_have_remedies() {
        let causes = [
            libc::EPERM,
            libc::ENOSYS,
            libc::EINVAL,
            libc::ENOMEM,
            libc::EMFILE,
            libc::EIO,
        ];
        for cause in causes {
            let error = RingError::from_setup(io::Error::from_raw_os_error(cause));
            assert!(error.to_string().contains("remedy: "), "{error}");
        }
        let error = RingError::Disabled { level: 1 }.to_string();
        assert!(
            error.contains("io_uring_disabled = 1") && error.contains("CAP_SYS_ADMIN"),
            "{error}"
        );
    }

    /// Requesting epoll never probes; requesting anything returns an engine or the reason why not.
    #[test]
    fn a_choice_is_an_engine_or_a_reason() {
        let (engine, warning) = choose(Some(Engine::Epoll)).expect("always there");
        assert_eq!((engine, warning), (Engine::Epoll, None));
        let (engine, warning) = choose(None).expect("falls back");
        assert_eq!(engine == Engine::Epoll, warning.is_some());
        assert_eq!(choose(Some(Engine::Uring)).is_ok(), engine == Engine::Uring);
    }
}
