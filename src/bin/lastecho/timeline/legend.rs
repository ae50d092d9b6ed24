//! Which colour means what.

use super::picture::width;
use super::row::Doing;
use lastecho::Outcome;
use std::fmt::Write as _;

/// How something that a connection does looks.
pub(super) struct Look {
    pub(super) doing: Doing,
    pub(super) class: &'static str,
    pub(super) colour: &'static str,
    words: &'static str,
}

const fn look(
    doing: Doing,
    class: &'static str,
    colour: &'static str,
    words: &'static str,
) -> Look {
    Look {
        doing,
        class,
        colour,
        words,
    }
}

/// Drawn in this order, the later ones above. The colours are from Okabe and
/// Ito's palette, which people see apart whichever colours they do not see.
pub(super) const LOOKS: [Look; 5] = [
    look(Doing::Waiting, "w", "#c3ced8", "waiting"),
    look(Doing::Quick, "q", "#56b4e9", "many quick requests"),
    look(Doing::Serving, "s", "#0072b2", "in a request"),
    look(Doing::Lingering, "l", "#e69f00", "FIN sent, lingering"),
    look(Doing::Cut, "c", "#d55e00", "cut, not closed yet"),
];

const DOTS: [(Outcome, &str); 4] = [
    (Outcome::Cut, "cut"),
    (Outcome::Reset, "reset"),
    (Outcome::Panicked, "panicked, failed"),
    (Outcome::Idle, "timed out"),
];

pub(super) fn legend(svg: &mut String) {
    let mut x = 10.0;
    for Look { class, words, .. } in LOOKS {
        let text = x + 22.0;
        let _ = writeln!(
            svg,
            "<path class=\"{class}\" stroke-width=\"9\" d=\"M{x:.0} 52h18\"/>\
             <text x=\"{text:.0}\" y=\"56\">{words}</text>"
        );
        x = text + width(words) + 8.0;
    }
    for (outcome, words) in DOTS {
        let (dot, text, colour) = (x + 4.0, x + 12.0, colour(outcome));
        let _ = writeln!(
            svg,
            "<circle cx=\"{dot:.0}\" cy=\"52\" r=\"4\" fill=\"{colour}\" stroke=\"#333\"/>\
             <text x=\"{text:.0}\" y=\"56\">{words}</text>"
        );
        x = text + width(words) + 8.0;
    }
}

/// The dot where a connection did not end well.
pub(super) fn colour(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Cut => "#d55e00",
        Outcome::Panicked | Outcome::Failed => "#cc79a7",
        Outcome::Idle | Outcome::Expired => "#fff",
        _ => "#000",
    }
}
