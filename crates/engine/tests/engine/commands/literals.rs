//! String literals of sources, and the commands in them.

/// The string literals of a Rust source, without those of its tests.
pub(super) fn literals(source: &str) -> Vec<String> {
    let end = source.find("\n#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    let mut rest = &source[..end];
    let mut found = Vec::new();
    let mut last = ' ';
    while let Some(c) = rest.chars().next() {
        let is_word = last.is_alphanumeric() || last == '_';
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |at| &rest[at..]);
        } else if let Some(raw) = rest.strip_prefix('r').filter(|r| !is_word && is_raw(r)) {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            let close = format!("\"{}", "#".repeat(hashes));
            let text = &raw[hashes + 1..];
            let at = text.find(&close).unwrap();
            found.push(text[..at].to_owned());
            rest = &text[at + close.len()..];
        } else if c == '"' {
            let (text, after) = unescaped(&rest[1..]);
            found.push(text);
            rest = after;
        } else if c == '\'' {
            rest = &rest[character(rest)..];
        } else {
            rest = &rest[c.len_utf8()..];
        }
        last = c;
    }
    found
}

fn is_raw(behind_r: &str) -> bool {
    behind_r.trim_start_matches('#').starts_with('"')
}

/// The length of a character literal; of a lifetime only its mark.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let behind = at + escaped.len_utf8();
            behind + text[behind..].find('\'').unwrap() + 1
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The text of a literal up to its end, and what is behind it.
fn unescaped(text: &str) -> (String, &str) {
    let mut found = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (found, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((at, '\n')) => {
                    let rest = &text[at..];
                    let blank = rest.len() - rest.trim_start().len();
                    chars = text.char_indices();
                    while chars.clone().next().is_some_and(|(i, _)| i < at + blank) {
                        chars.next();
                    }
                }
                Some((_, 'n')) => found.push('\n'),
                Some((_, escaped)) => found.push(escaped),
                None => {}
            },
            c => found.push(c),
        }
    }
    panic!("a literal without an end");
}

/// What stands between backquotes, with `{}` where a value is put in.
pub(super) fn quoted(literal: &str) -> impl Iterator<Item = String> {
    literal.split('`').skip(1).step_by(2).map(template)
}

fn template(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            found.push(c);
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}'))
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_:?#".contains(c))
        {
            found.push_str("{}");
            rest = after;
        } else {
            found.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    found
}
