//! Parses the request of a connection to `--listen`.

use super::super::case::Case;
use super::super::handshake::Head;

/// A valid request. `index` counts the cases from 0; in the addresses they count from 1.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// The page with which a browser tests itself.
    Page,
    /// The cases, for the page.
    Cases,
    /// The result of a case, for the page.
    Result { index: usize, agent: String },
    /// How many cases there are.
    CaseCount,
    /// Number and title of a case.
    CaseInfo { index: usize },
    /// The result of a case, in one word.
    CaseStatus { index: usize, agent: String },
    /// A case's conversation.
    RunCase { index: usize, agent: String },
    /// The reports are to be written.
    UpdateReports { agent: String, is_last: bool },
    /// End everything.
    StopServer,
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Code and words.
    pub status: &'static str,
    /// For a human.
    pub why: String,
}

impl Request {
    /// Parses a request's target; an upgrade request asks for a WebSocket, any other for a page.
    pub fn parse(head: &Head, cases: &[Case]) -> Result<Self, Refusal> {
        let target = head
            .first_line
            .strip_prefix("GET ")
            .and_then(|rest| rest.strip_suffix(" HTTP/1.1"))
            .ok_or_else(|| refusal("400 Bad Request", "only GET and HTTP/1.1 are spoken here"))?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        if !head.has_token("upgrade", "websocket") {
            return match path {
                "/" => Ok(Self::Page),
                "/cases.json" => Ok(Self::Cases),
                "/result.json" => Ok(Self::Result {
                    index: query.case(cases)?,
                    agent: query.agent()?,
                }),
                "/getCaseCount" | "/getCaseInfo" | "/getCaseStatus" | "/runCase"
                | "/updateReports" | "/stopServer" => Err(refusal(
                    "426 Upgrade Required",
                    "this address speaks WebSocket",
                )),
                _ => Err(refusal("404 Not Found", "there is nothing here")),
            };
        }
        match path {
            "/getCaseCount" => Ok(Self::CaseCount),
            "/getCaseInfo" => Ok(Self::CaseInfo {
                index: query.case(cases)?,
            }),
            "/getCaseStatus" => Ok(Self::CaseStatus {
                index: query.case(cases)?,
                agent: query.agent()?,
            }),
            "/runCase" => Ok(Self::RunCase {
                index: query.case(cases)?,
                agent: query.agent()?,
            }),
            "/updateReports" => Ok(Self::UpdateReports {
                agent: query.agent()?,
                is_last: query.is_last(),
            }),
            "/stopServer" => Ok(Self::StopServer),
            _ => Err(refusal("404 Not Found", "there is nothing here")),
        }
    }
}

fn refusal(status: &'static str, why: impl Into<String>) -> Refusal {
    Refusal {
        status,
        why: why.into(),
    }
}

/// Names and values, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(own, _)| own == name);
        values.next().map(|(_, value)| value.as_str())
    }

    /// `case`, a count from 1, or `casetuple`, a case's own number.
    fn case(&self, cases: &[Case]) -> Result<usize, Refusal> {
        let index = match (self.value("case"), self.value("casetuple")) {
            (Some(count), _) => count
                .parse::<usize>()
                .ok()
                .and_then(|count| count.checked_sub(1)),
            (None, Some(number)) => cases
                .iter()
                .position(|case| case.number.to_string() == number.trim()),
            (None, None) => {
                return Err(refusal("400 Bad Request", "which case? (case=N)"));
            }
        };
        index.filter(|index| *index < cases.len()).ok_or_else(|| {
            let count = cases.len();
            refusal(
                "404 Not Found",
                format!("no such case; they count from 1 to {count}"),
            )
        })
    }

    fn agent(&self) -> Result<String, Refusal> {
        match self.value("agent") {
            Some(agent) if (1..=AGENT_BYTES_MAX).contains(&agent.len()) => Ok(agent.to_owned()),
            Some(_) => Err(refusal(
                "400 Bad Request",
                format!("agent must have 1 to {AGENT_BYTES_MAX} bytes"),
            )),
            None => Err(refusal("400 Bad Request", "which client? (agent=NAME)")),
        }
    }

    fn is_last(&self) -> bool {
        let value = self.value("shutdownOnComplete").unwrap_or_default();
        value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("yes")
    }
}

/// Percent-decodes a part of a query; an invalid escape stays as it is.
fn decode(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let escaped = after
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (escaped, first) {
            (Some(octet), _) => {
                octets.push(octet);
                rest = &after[2..];
            }
            (None, b'+') => octets.push(b' '),
            (None, octet) => octets.push(octet),
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// A name, not an arbitrary text: it becomes a part of file names.
const AGENT_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::super::super::verdict::Verdict;
    use super::*;

    fn parse(target: &str, is_upgrade: bool) -> Result<Request, &'static str> {
        let cases = [[1, 1, 1], [1, 1, 2]].map(|number| {
            Case::new(number, "clause", "title", "expectation", |_| {
                Verdict::ok("")
            })
        });
        let upgrade = ("upgrade".to_owned(), "WebSocket".to_owned());
        let head = Head {
            text: String::new(),
            first_line: format!("GET {target} HTTP/1.1"),
            headers: is_upgrade.then_some(upgrade).into_iter().collect(),
        };
        Request::parse(&head, &cases).map_err(|refusal| &refusal.status[..3])
    }

    /// Every address of the original's server has its meaning here.
    #[test]
    fn addresses() {
        let agent = || "a b/ü".to_owned();
        for (target, meaning) in [
            ("/getCaseCount", Request::CaseCount),
            ("/getCaseInfo?case=2", Request::CaseInfo { index: 1 }),
            (
                "/runCase?case=1&agent=a%20b/%C3%BC",
                Request::RunCase {
                    index: 0,
                    agent: agent(),
                },
            ),
            (
                "/runCase?casetuple=1.1.2&agent=a+b%2F%c3%bc",
                Request::RunCase {
                    index: 1,
                    agent: agent(),
                },
            ),
            (
                "/getCaseStatus?agent=a+b/ü&case=2",
                Request::CaseStatus {
                    index: 1,
                    agent: agent(),
                },
            ),
            (
                "/updateReports?agent=x&shutdownOnComplete=True",
                Request::UpdateReports {
                    agent: "x".to_owned(),
                    is_last: true,
                },
            ),
            ("/stopServer", Request::StopServer),
        ] {
            assert_eq!(parse(target, true), Ok(meaning), "{target}");
            assert_eq!(parse(target, false), Err("426"), "{target}");
        }
        assert_eq!(parse("/", false), Ok(Request::Page));
        assert_eq!(parse("/cases.json", false), Ok(Request::Cases));
    }

    /// An invalid request is refused, and a missing case is not confused with another one.
    #[test]
    fn refusals() {
        for (target, code) in [
            ("/", "404"),
            ("/runCase", "400"),
            ("/runCase?case=1", "400"),
            ("/runCase?case=1&agent=", "400"),
            ("/runCase?case=0&agent=a", "404"),
            ("/runCase?case=3&agent=a", "404"),
            ("/runCase?case=1.1.1&agent=a", "404"),
            ("/runCase?casetuple=1.1&agent=a", "404"),
            ("/nothing", "404"),
        ] {
            assert_eq!(parse(target, true), Err(code), "{target}");
        }
        assert_eq!(parse("/result.json?case=1", false), Err("400"));
        assert_eq!(decode("100%+%2"), "100% %2");
    }
}
