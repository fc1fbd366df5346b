//! Replaces environment variables in texts of the configuration file, so that credentials need not be in it.
//!
//! `$NAME` and `${NAME}` stand for a variable. Its name has capital letters, digits and `_`, and does not begin with a
//! digit. `$$` stands for a dollar sign. Any other `$` stands for itself.

/// Returns `text` with its variables replaced.
///
/// # Errors
/// The name of a variable that is not set.
pub(super) fn expand(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(behind) = behind.strip_prefix('$') {
            expanded.push('$');
            rest = behind;
            continue;
        }
        match variable(behind) {
            None => {
                expanded.push('$');
                rest = behind;
            }
            Some((name, behind)) => {
                expanded.push_str(&environment(name).ok_or_else(|| name.to_owned())?);
                rest = behind;
            }
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The name at the start of the text after a `$`, and the text after the name.
fn variable(text: &str) -> Option<(&str, &str)> {
    if let Some(inside) = text.strip_prefix('{') {
        let (name, behind) = inside.split_once('}')?;
        return is_name(name).then_some((name, behind));
    }
    let end = text
        .find(|letter: char| {
            !letter.is_ascii_uppercase() && !letter.is_ascii_digit() && letter != '_'
        })
        .unwrap_or(text.len());
    let (name, behind) = text.split_at(end);
    is_name(name).then_some((name, behind))
}

fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    text.bytes().all(is_letter)
        && !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each named variable is replaced once. A value that looks like a variable is not replaced again.
    #[test]
    fn variables_are_put_in() {
        let environment = |name: &str| match name {
            "TOKEN" => Some("s3cret".to_owned()),
            "_A1" => Some("$TOKEN".to_owned()),
            _ => None,
        };
        for (text, expected) in [
            ("$TOKEN", Ok("s3cret")),
            ("Bearer $TOKEN", Ok("Bearer s3cret")),
            ("${TOKEN}X $TOKEN.", Ok("s3cretX s3cret.")),
            ("$_A1", Ok("$TOKEN")),
            ("$$TOKEN $$", Ok("$TOKEN $")),
            (
                r#"{"$ref":"$x","price":"5$"}"#,
                Ok(r#"{"$ref":"$x","price":"5$"}"#),
            ),
            ("$1 ${} ${a} ${TOKEN", Ok("$1 ${} ${a} ${TOKEN")),
            ("é$", Ok("é$")),
            ("$TOKENX", Err("TOKENX")),
            ("${NOT_SET}", Err("NOT_SET")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(expand(text, &environment), expected, "{text}");
        }
    }
}
