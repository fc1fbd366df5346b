//! Merges the CPU of both ends: processes are added, and a server that several runs watched counts once.

use super::Merger;
use crate::measure::cpu::CpuUse;
use crate::summary::second::SecondCpu;
use crate::summary::{End, ProcessCpu, Summary};

impl Merger<'_> {
    pub(super) fn client(&self) -> End {
        let all = vec![true; self.summaries.len()];
        self.end(&all, |summary| Some(&summary.client), |cpu| cpu.client_ns)
            .expect("every summary has a client")
    }

    pub(super) fn server(&self) -> Option<End> {
        self.end(
            &self.observes_server,
            |summary| summary.server.as_ref(),
            |cpu| cpu.server_ns.unwrap_or(0),
        )
    }

    /// The sum of one end; its time per message is that of the common time.
    fn end(
        &self,
        counts: &[bool],
        end: impl Fn(&Summary) -> Option<&End>,
        cpu_ns: impl Fn(&SecondCpu) -> u64,
    ) -> Option<End> {
        let mut ends = Vec::new();
        let (mut cpu_sum_ns, mut received) = (0.0, 0.0);
        for (summary, counts) in self.summaries.iter().zip(counts) {
            received += self
                .common
                .sum(summary, |second| second.counts.messages_received as f64);
            if let (Some(end), true) = (end(summary), counts) {
                cpu_sum_ns += self
                    .common
                    .sum(summary, |second| cpu_ns(&second.cpu) as f64);
                ends.push(end);
            }
        }
        add_ends(&ends, cpu_sum_ns / received.max(1.0))
    }
}

/// The sum of what several processes used; None if there are none.
pub(super) fn add_ends(ends: &[&End], ns_per_message: f64) -> Option<End> {
    let (first, others) = ends.split_first()?;
    let used = |figure: fn(&CpuUse) -> u64| ends.iter().map(|end| figure(&end.cpu.used)).sum();
    let busiest = ends
        .iter()
        .map(|end| end.cpu.busiest)
        .max_by(|one, other| one.demand().total_cmp(&other.demand()))?;
    Some(End {
        cpu: ProcessCpu {
            used: CpuUse {
                total_ns: used(|cpu| cpu.total_ns),
                user_ns: used(|cpu| cpu.user_ns),
                system_ns: used(|cpu| cpu.system_ns),
                // Thread ids of different machines say nothing; they are numbered anew.
                threads: ends
                    .iter()
                    .flat_map(|end| end.cpu.used.threads.values())
                    .zip(1..)
                    .map(|(times, number)| (number, *times))
                    .collect(),
            },
            busiest,
            cores: ends.iter().map(|end| end.cpu.cores).sum(),
            ns_per_message,
        },
        pid: first.pid.filter(|_| others.is_empty()),
    })
}

/// Of each watched server process, the part that watched it longest.
pub(super) fn first_observers(summaries: &[&Summary]) -> Vec<bool> {
    let key = |summary: &Summary| {
        let pid = summary.server.as_ref()?.pid?;
        Some((summary.environment.boot_id.clone(), pid))
    };
    summaries
        .iter()
        .enumerate()
        .map(|(index, summary)| {
            let Some(own) = key(summary) else {
                // An unknown process is nobody's twin.
                return true;
            };
            !summaries.iter().enumerate().any(|(other_index, other)| {
                let is_twin = other_index != index && key(other).as_ref() == Some(&own);
                let is_longer = (other.measured_ns, std::cmp::Reverse(other_index))
                    > (summary.measured_ns, std::cmp::Reverse(index));
                is_twin && is_longer
            })
        })
        .collect()
}
