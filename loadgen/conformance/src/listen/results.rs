//! The results of the clients' cases, by client.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadgen_common::error::status;

use super::super::report::index::Agents;
use super::super::run::CaseReport;

/// The results of all clients.
pub struct Results {
    cases: usize,
    agents: Mutex<BTreeMap<String, Agent>>,
    /// A report was added.
    is_put: Condvar,
    /// How many cases of each client are running.
    running: Mutex<BTreeMap<String, usize>>,
    /// A case has ended.
    is_ended: Condvar,
}

/// A case that is running; it ends when this is dropped.
pub struct Running<'r> {
    results: &'r Results,
    agent: &'r str,
}

struct Agent {
    /// In the order of the cases; a case that ran twice has its last report.
    reports: Vec<Option<CaseReport>>,
    /// Nothing was added since the reports were last written.
    is_reported: bool,
}

impl Results {
    /// No results yet, for this many cases.
    pub fn new(cases: usize) -> Self {
        Self {
            cases,
            agents: Mutex::new(BTreeMap::new()),
            is_put: Condvar::new(),
            running: Mutex::new(BTreeMap::new()),
            is_ended: Condvar::new(),
        }
    }

    /// A case of this client begins.
    pub fn begin<'r>(&'r self, agent: &'r str) -> Running<'r> {
        let mut running = lock(&self.running);
        *running.entry(agent.to_owned()).or_default() += 1;
        let results = self;
        Running { results, agent }
    }

    /// Waits until no case of this client is running: a client asks for its reports as soon as its last connection is
    /// closed, and the tester may need a moment longer for the verdict.
    pub fn settle(&self, agent: &str) {
        let is_running = |running: &mut BTreeMap<String, usize>| running.contains_key(agent);
        let waited =
            self.is_ended
                .wait_timeout_while(lock(&self.running), RESULT_TIMEOUT, is_running);
        drop(waited);
    }

    /// Adds a report; an error when there are too many clients.
    pub fn put(&self, agent: &str, index: usize, report: CaseReport) -> Result<(), String> {
        let mut agents = lock(&self.agents);
        if !agents.contains_key(agent) {
            if agents.len() >= AGENTS_MAX {
                return Err(format!("more than {AGENTS_MAX} clients"));
            }
            let reports = std::iter::repeat_with(|| None).take(self.cases).collect();
            let new = Agent {
                reports,
                is_reported: false,
            };
            agents.insert(agent.to_owned(), new);
        }
        let entry = agents.get_mut(agent).expect("it is there now");
        entry.reports[index] = Some(report);
        entry.is_reported = false;
        self.is_put.notify_all();
        Ok(())
    }

    /// Reads a report, waiting for it: for a client the case may have ended earlier than for the tester.
    pub fn wait<T>(
        &self,
        agent: &str,
        index: usize,
        read: impl FnOnce(&CaseReport) -> T,
    ) -> Option<T> {
        let is_missing = |agents: &mut BTreeMap<String, Agent>| {
            let entry = agents.get(agent);
            entry.is_none_or(|entry| entry.reports[index].is_none())
        };
        let waited = self
            .is_put
            .wait_timeout_while(lock(&self.agents), RESULT_TIMEOUT, is_missing);
        let (agents, _) = waited.unwrap_or_else(PoisonError::into_inner);
        agents.get(agent)?.reports[index].as_ref().map(read)
    }

    /// Returns the reports of all clients; those of `agent` count as reported afterwards.
    pub fn report<T>(&self, agent: &str, report: impl FnOnce(&Agents<'_>) -> T) -> T {
        let mut agents = lock(&self.agents);
        if let Some(entry) = agents.get_mut(agent) {
            entry.is_reported = true;
        }
        let all: Vec<(&str, Vec<&CaseReport>)> = agents
            .iter()
            .map(|(name, entry)| (name.as_str(), entry.reports.iter().flatten().collect()))
            .collect();
        report(&all)
    }

    /// The clients whose last results were not reported.
    pub fn unreported(&self) -> Vec<String> {
        let agents = lock(&self.agents);
        let unreported = agents.iter().filter(|(_, entry)| !entry.is_reported);
        unreported.map(|(name, _)| name.clone()).collect()
    }

    /// The exit status of the process after this client.
    pub fn exit_status(&self, agent: &str) -> u8 {
        let agents = lock(&self.agents);
        let mut reports = agents
            .get(agent)
            .into_iter()
            .flat_map(|entry| entry.reports.iter().flatten());
        if reports.any(|report| !report.is_good()) {
            status::SERVER
        } else {
            status::DONE
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = lock(&self.results.running);
        if let Some(count) = running.get_mut(self.agent) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.agent);
            }
        }
        self.results.is_ended.notify_all();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // A case that panicked put nothing: the results are whole.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each holds the log of every case; a driver that invents names must not fill the memory.
const AGENTS_MAX: usize = 64;
/// Longer than any case waits for its end after the client has closed.
const RESULT_TIMEOUT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// The reports of a client wait for its cases that are running, also for one that panics, and for nobody else's.
    #[test]
    fn reports_wait_for_the_last_verdict() {
        let results = Results::new(2);
        let others = results.begin("other");
        let has_ended = AtomicBool::new(false);
        let first = results.begin("client");
        let second = results.begin("client");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                results.settle("client");
                has_ended.load(Ordering::SeqCst)
            });
            let panics = scope.spawn(move || {
                let _running = first;
                panic!("as a case may");
            });
            assert!(panics.join().is_err());
            for _ in 0..1_000 {
                std::thread::yield_now();
            }
            has_ended.store(true, Ordering::SeqCst);
            drop(second);
            assert!(waiting.join().expect("it returns"), "it has not waited");
        });
        results.settle("client");
        drop(others);
        assert!(lock(&results.running).is_empty());
    }
}
