//! Reports as one HTML page: styles, script and pictures are inside; the page loads nothing.
//!
//! Every figure is there without the script, which only adds a cursor to the charts. The pictures are SVG without text,
//! stretched to the available width; labels are HTML around them, so that they stay readable on a phone.

mod chart;
mod heat_map;
pub mod percentiles;
pub mod run;
pub mod tables;
mod timeline;

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use loadgen_common::calendar;

/// A page with this title; `body` is HTML.
pub fn page(title: &str, body: &str) -> String {
    let mut out = String::with_capacity(body.len() + STYLE.len() + SCRIPT.len() + 1_024);
    // Writing to a String does not fail. The policy forbids what the page does not do: to load.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        escape(title)
    );
    out
}

/// Text as HTML, also within attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A card of the page: a heading, notes for reading it, and its content (HTML).
pub fn section(id: &str, heading: &str, lead: &str, content: &str) -> String {
    let lead = match lead {
        "" => String::new(),
        lead => format!("<p class=\"lead\">{lead}</p>\n"),
    };
    format!(
        "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{heading}</h2>\n{lead}{content}</section>\n"
    )
}

/// `YYYY-MM-DD HH:MM:SS UTC`.
pub fn utc(unix_s: u64) -> String {
    let moment = calendar::utc(UNIX_EPOCH + Duration::from_secs(unix_s));
    format!("{} {} UTC", &moment[..10], &moment[11..19])
}

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("cursor.js");

#[cfg(test)]
mod tests {
    use super::*;

    /// Dates at the limits of the calendar.
    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_767_225_599), "2025-12-31 23:59:59 UTC");
    }

    /// No text from a server or a command line becomes markup.
    #[test]
    fn text_stays_text() {
        assert_eq!(escape("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
    }
}
