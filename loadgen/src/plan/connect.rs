//! What `loadgen connect` does with connections.

/// What `connect` does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectMode {
    /// Opens them all.
    Open,
    /// Closes each connection when it is established and starts another.
    Cycle {
        /// Each echoes one message first.
        has_echo: bool,
    },
    /// Cuts all connections when they are open, and lets them return.
    Storm,
}

impl ConnectMode {
    /// Whether connections that end are opened again.
    pub const fn is_returning(self) -> bool {
        !matches!(self, Self::Open)
    }

    /// As the summary shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Cycle { has_echo: false } => "cycle",
            Self::Cycle { has_echo: true } => "cycle with an echo",
            Self::Storm => "storm",
        }
    }
}
