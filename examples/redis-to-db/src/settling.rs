//! What `settle.lua` is asked, and what it answers.

/// How a worker is done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is in the database.
    Done,
    /// It could not be tried: it is the next again.
    Back,
    /// It failed, perhaps by no fault of its own: it comes last.
    Last,
    /// It failed: it comes last, or goes to the dead.
    Failed,
}

/// What became of it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// What was asked for.
    AsAsked,
    /// It failed too often: it is with the dead.
    Dead,
    /// It was in our list no more.
    NotOurs,
}

impl How {
    /// Names it to the script.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Back => "back",
            Self::Last => "last",
            Self::Failed => "failed",
        }
    }
}

impl Settled {
    /// Reads the script's answer.
    #[must_use]
    pub fn new(answer: u64) -> Self {
        match answer {
            1 => Self::Dead,
            2 => Self::NotOurs,
            _ => Self::AsAsked,
        }
    }
}
