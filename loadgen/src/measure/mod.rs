//! What is measured and how it is judged: pure code with time as an argument.

pub mod connects;
pub mod cpu;
pub mod fairness;
pub mod histogram;
pub mod interval;
pub mod memory;
pub mod rate;
pub mod stolen;
pub mod tail;
pub mod trend;
pub mod verdict;
