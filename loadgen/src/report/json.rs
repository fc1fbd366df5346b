//! The JSON file: everything that was measured, with the histograms; written and read back.

use serde::Deserialize;

use crate::report::summary::{SCHEMA, Summary};

/// The text of the file.
pub fn encode(summary: &Summary) -> Vec<u8> {
    let mut text =
        serde_json::to_vec_pretty(summary).expect("a summary has no keys that JSON cannot have");
    text.push(b'\n');
    text
}

/// Reads the summary back.
///
/// # Errors
/// What is wrong with the text.
pub fn decode(text: &[u8]) -> Result<Summary, String> {
    #[derive(Deserialize)]
    struct Form {
        schema: Option<String>,
    }
    let form: Form =
        serde_json::from_slice(text).map_err(|error| format!("not JSON of loadgen: {error}"))?;
    match form.schema.as_deref() {
        Some(SCHEMA) => serde_json::from_slice(text).map_err(|error| format!("damaged: {error}")),
        Some(other) => Err(format!(
            "its schema is {other:?}; this version of loadgen reads {SCHEMA:?}"
        )),
        None => Err("not JSON of loadgen: it names no schema".to_owned()),
    }
}
