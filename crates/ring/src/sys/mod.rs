//! What tickring needs from the operating system besides the ring: listening sockets, cores, limits, and the doorbell
//! that wakes a thread.
//!
//! Everything here is called at start-up or rarely, except [`Doorbell::ring`], which may be on a busy path.

mod cores;
mod doorbell;
mod limits;
mod listener;
mod path;

pub use cores::{available_cores, pin_to_core};
pub use doorbell::Doorbell;
pub use limits::{
    descriptor_limit, memory_bytes, open_descriptors, raise_descriptor_limit, resident_bytes,
    thread_cpu_time,
};
pub(crate) use listener::bind_source;
pub use listener::{ListenOptions, listen, listen_shared};
pub use path::Path;
pub(crate) use path::path;
