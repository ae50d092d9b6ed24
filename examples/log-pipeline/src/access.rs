//! The combined access-log format of Apache and nginx.

use regex::Regex;
use std::fmt;

/// host ident user \[time\] "request" status bytes "referer" "user agent", with
/// backslashes before quotes in quoted fields. What stands before it is
/// skipped: syslog puts its own header there.
const COMBINED: &str = r#"(?x)
    (?: ^ | \s) (?<host>\S+) \s \S+ \s (?<user>\S+) \s \[ (?<time>[^\]]+) \] \s
    " (?<method>[A-Z]+) \s (?<path>\S+) \s HTTP/[\d.]+ " \s
    (?<status>\d{3}) \s (?<bytes>\d+|-) \s
    " (?<referer> (?: [^"\\] | \\. )* ) " \s
    " (?<agent> (?: [^"\\] | \\. )* ) " \s* $
"#;

/// Understands lines; made once, shared by all.
pub(crate) struct Parser {
    combined: Regex,
}

/// One request, as its line tells it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) host: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
}

impl Parser {
    pub(crate) fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            combined: Regex::new(COMBINED)?,
        })
    }

    /// What a line tells, if it is one.
    pub(crate) fn parse(&self, line: &[u8]) -> Option<Access> {
        let line = std::str::from_utf8(line).ok()?;
        let fields = self.combined.captures(line)?;
        Some(Access {
            host: fields["host"].to_owned(),
            method: fields["method"].to_owned(),
            path: fields["path"].to_owned(),
            status: fields["status"].parse().ok()?,
            bytes: match &fields["bytes"] {
                "-" => 0,
                bytes => bytes.parse().ok()?,
            },
        })
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "host={} method={} path={} status={} bytes={}",
            self.host.escape_debug(),
            self.method,
            self.path.escape_debug(),
            self.status,
            self.bytes
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326 "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)""#;

    fn parse(line: &str) -> Option<Access> {
        Parser::new().unwrap().parse(line.as_bytes())
    }

    #[test]
    fn a_line_is_understood_with_and_without_a_syslog_header() {
        let access = parse(LINE).unwrap();
        assert_eq!(
            access.to_string(),
            "host=127.0.0.1 method=GET path=/a.gif status=200 bytes=2326"
        );
        for header in [
            "<13>Nov 21 09:12:45 vm httpd: ",
            "<13>1 2026-11-21T09:12:43.363888+00:00 vm root - - [timeQuality tzKnown=\"1\"] ",
        ] {
            assert_eq!(parse(&format!("{header}{LINE}\r")).as_ref(), Some(&access));
        }
    }

    #[test]
    fn quotes_in_quotes_and_missing_sizes_are_understood() {
        let line = LINE.replace("Mozilla/4.08", r#"a \"quoted\" name"#);
        assert!(parse(&line).is_some());
        assert_eq!(parse(&LINE.replace("2326", "-")).unwrap().bytes, 0);
    }

    #[test]
    fn anything_else_is_not() {
        for line in [
            "",
            "GET / HTTP/1.1",
            &LINE.replace("200", "2OO"),
            &LINE[..60],
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
        let huge = LINE.replace("2326", "99999999999999999999999");
        assert_eq!(parse(&huge), None);
    }
}
