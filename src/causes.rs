//! An error in words, with what caused it.

use std::error::Error;
use std::fmt::{self, Write};

/// The most bytes of one error that are shown: it may quote what a peer sent.
const LONGEST: usize = 1000;
/// The most errors of a chain that are shown: a chain may be a circle.
const MOST: usize = 16;

/// Shows an error and everything that caused it, `outer: inner: innermost`;
/// most errors show only themselves. What is beyond [`LONGEST`] is left out.
///
/// `io::Error` has a source of its own only where it wraps another error, and
/// shows that one then; so each text is shown once.
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = Shown::default();
        let chain = std::iter::successors(Some(self.0), |&error| error.source());
        let full = chain.take(MOST).any(|error| shown.add(error).is_err());
        f.write_str(&shown.0)?;
        f.write_str(if full { " …" } else { "" })
    }
}

/// What is shown so far; it takes no more than [`LONGEST`].
#[derive(Default)]
struct Shown(String);

impl Shown {
    fn add(&mut self, error: &dyn Error) -> fmt::Result {
        let before = self.0.len();
        if before > 0 {
            self.write_str(": ")?;
        }
        let begun = self.0.len();
        write!(self, "{error}")?;
        // Many show their cause themselves.
        if self.0[..before].ends_with(&self.0[begun..]) {
            self.0.truncate(before);
        }
        Ok(())
    }
}

impl Write for Shown {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST - self.0.len();
        let fits = text.floor_char_boundary(room);
        self.0.push_str(&text[..fits]);
        match fits == text.len() {
            true => Ok(()),
            false => Err(fmt::Error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug)]
    struct Layer(String, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            let cause = self.1.as_deref();
            cause.map(|cause| cause as &(dyn Error + 'static))
        }
    }

    fn layers(texts: &[&str]) -> Layer {
        let (first, rest) = texts.split_first().unwrap();
        let cause = (!rest.is_empty()).then(|| Box::new(layers(rest)));
        Layer((*first).to_owned(), cause)
    }

    #[test]
    fn an_error_is_shown_with_all_its_causes() {
        let error = io::Error::other(layers(&["cannot save", "cannot write", "disk full"]));
        assert_eq!(error.to_string(), "cannot save");
        let shown = Causes(&error).to_string();
        assert_eq!(shown, "cannot save: cannot write: disk full");
        assert_eq!(Causes(&io::Error::other("plain")).to_string(), "plain");
    }

    #[test]
    fn a_cause_that_the_error_shows_itself_is_shown_once() {
        let error = layers(&["cannot save: disk full", "disk full"]);
        assert_eq!(Causes(&error).to_string(), "cannot save: disk full");
    }

    #[test]
    fn long_errors_and_long_chains_have_an_end() {
        for texts in [
            ["ü"; 2].map(|text| text.repeat(LONGEST)),
            [" x".into(), "y".repeat(LONGEST)],
        ] {
            let error = layers(&[&texts[0], &texts[1]]);
            let shown = Causes(&error).to_string();
            assert!(shown.len() <= LONGEST + " …".len(), "{}", shown.len());
            assert!(shown.ends_with(" …"), "{shown}");
        }
        let many: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let shown = Causes(&layers(&many)).to_string();
        assert!(shown.ends_with(": 15"), "{shown}");
    }
}
