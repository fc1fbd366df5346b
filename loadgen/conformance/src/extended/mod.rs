//! Groups 20 to 25: cases that the Autobahn testsuite does not have.
//!
//! Each case names the clause that it tests, and fails a peer only for breaking a MUST of an RFC. If a peer does not
//! follow a recommendation of an RFC, the case is NON-STRICT. If the RFC leaves something open, and the peer decides
//! otherwise than the hardened server of our own list (`hostile input`), the case is INFORMATIONAL. So a correct server
//! has no FAILED here.

mod closing;
mod compression;
mod floods;
mod handshake;
mod hostile;
mod masking;
mod negotiation;
mod refusals;
mod tools;

use super::case::Case;

/// All cases, in the order of their numbers.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(handshake::cases());
    cases.extend(masking::cases());
    cases.extend(negotiation::cases());
    cases.extend(compression::cases());
    cases.extend(closing::cases());
    cases.extend(floods::cases());
    cases.extend(hostile::cases());
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are unique, in order and in groups 20 to 25, and every case names its clause.
    #[test]
    fn cases_are_in_order_and_name_their_clause() {
        let cases = cases();
        for pair in cases.windows(2) {
            assert!(
                pair[0].number < pair[1].number,
                "{} before {}",
                pair[0].number,
                pair[1].number
            );
        }
        for case in &cases {
            let number = &case.number;
            assert!((20..=25).contains(&number.group()), "{number}");
            assert!(
                case.clause.starts_with("RFC ") || case.clause.starts_with("hostile input"),
                "{number}: {}",
                case.clause
            );
            assert!(!case.title.is_empty() && !case.expectation.is_empty());
        }
    }

    /// The table in README.md counts what there is.
    #[test]
    fn readme_counts_the_cases() {
        let readme = include_str!("../../../README.md");
        let mut counts = std::collections::BTreeMap::new();
        for case in cases() {
            *counts.entry(case.number.subgroup()).or_insert(0_u32) += 1;
        }
        let total = format!("does not ask: {} cases", cases().len());
        assert!(readme.contains(&total), "README.md does not say {total:?}");
        for (subgroup, count) in counts {
            let row = format!("| {subgroup} | {count} |");
            assert!(readme.contains(&row), "README.md has no row {row:?}");
        }
    }
}
