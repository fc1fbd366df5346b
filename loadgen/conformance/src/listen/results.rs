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
    is_put: Condvar,
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
        }
    }

    /// Adds a report; an error when there are too many clients.
    pub fn put(&self, agent: &str, index: usize, report: CaseReport) -> Result<(), String> {
        let mut agents = self.lock();
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
            .wait_timeout_while(self.lock(), RESULT_TIMEOUT, is_missing);
        let (agents, _) = waited.unwrap_or_else(PoisonError::into_inner);
        agents.get(agent)?.reports[index].as_ref().map(read)
    }

    /// Returns the reports of all clients; those of `agent` count as reported afterwards.
    pub fn report<T>(&self, agent: &str, report: impl FnOnce(&Agents<'_>) -> T) -> T {
        let mut agents = self.lock();
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
        let agents = self.lock();
        let unreported = agents.iter().filter(|(_, entry)| !entry.is_reported);
        unreported.map(|(name, _)| name.clone()).collect()
    }

    /// The exit status of the process after this client.
    pub fn exit_status(&self, agent: &str) -> u8 {
        let agents = self.lock();
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Agent>> {
        // A case that panicked put nothing: the results are whole.
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each holds the log of every case; a driver that invents names must not fill the memory.
const AGENTS_MAX: usize = 64;
/// Longer than any case waits for its end after the client has closed.
const RESULT_TIMEOUT: Duration = Duration::from_secs(15);
