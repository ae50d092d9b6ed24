//! Rust source as the rules see it: without comments, strings and tests.

/// The source with the text of comments, strings and characters blanked; line
/// ends stay, so line numbers hold.
pub(super) fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = blank_length(rest, code.chars().next_back());
        let (text, after) = rest.split_at(length.unwrap_or(first.len_utf8()));
        match length {
            Some(_) => code.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push_str(text),
        }
        rest = after;
    }
    code
}

/// How much of a comment, a string or a character starts here.
fn blank_length(text: &str, before: Option<char>) -> Option<usize> {
    let is_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    let raw = text.trim_start_matches("b").trim_start_matches("r");
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if !is_word && text.len() > raw.len() && text[..text.len() - raw.len()].contains('r') {
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let inside = text.len() - raw.len() + hashes + 1;
            let length = text[inside..].find(&end).map(|at| inside + at + end.len());
            return Some(length.unwrap_or(text.len()));
        }
        return None;
    }
    if text.starts_with('"') {
        return Some(quoted(text, '"'));
    }
    // A character, not a lifetime: `'x'` or `'\…'`.
    let mut after = text.strip_prefix('\'')?.chars();
    match (after.next(), after.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => Some(quoted(text, '\'')),
        _ => None,
    }
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Code without its unit tests: every item under `#[cfg(test)]` blanked.
pub(super) fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let end = at + item_length(&rest[at..]);
        kept.extend(rest[at..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    kept + rest
}

/// To the end of the item's braces, or to its semicolon.
pub(super) fn item_length(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (c == '}' || c == ';') {
            return at + 1;
        }
    }
    code.len()
}

/// Whether `word` stands in the line as a whole word.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        boundary(line[..at].chars().next_back()) && boundary(line[at + word.len()..].chars().next())
    })
}

/// The numbers and texts of the lines that are not blank.
pub(super) fn lines(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = code.lines().enumerate().map(|(at, line)| (at + 1, line));
    numbered.filter(|(_, line)| !line.trim().is_empty())
}

#[test]
fn comments_strings_and_characters_are_blanked_and_lines_stay() {
    let source =
        "a // b\n\"c \\\" d\" e /* f /* g */\n h */ 'i' '\\'' <'j> r#\"k \" l\"# b'm' r\"n\" for\n";
    let words: Vec<_> = code(source).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "e", "<'j>", "b", "for"]);
    assert_eq!(code(source).lines().count(), source.lines().count());
    assert_eq!(
        code("let s = \"ü\"; 'ü'; x").trim_end(),
        "let s =    ;    ; x"
    );
}

#[test]
fn tests_are_blanked() {
    let source = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { {} }\n}\nfn c() {}\n#[cfg(test)]\nuse d;\nfn e() {}\n";
    let kept = without_tests(source);
    assert_eq!(
        kept.split_whitespace().collect::<String>(),
        "fna(){}fnc(){}fne(){}"
    );
    assert_eq!(kept.lines().count(), source.lines().count());
}

#[test]
fn words_are_whole() {
    assert!(has_word("an unsafe { }", "unsafe"));
    assert!(!has_word("unsafe_code", "unsafe") && !has_word("xunsafe", "unsafe"));
}
