//! How a shutdown ended, phase by phase.

use crate::causes::Causes;
use crate::sync::Arc;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What a phase may fail with.
pub type PhaseError = Box<dyn Error + Send + Sync>;

/// How a phase ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PhaseEnd {
    /// It is done.
    Done,
    /// It said that it failed; it is over all the same.
    Failed(Arc<PhaseError>),
    /// It panicked.
    Panicked,
    /// It was still at it when its time was over, and was left behind.
    Stuck,
}

impl From<Result<(), PhaseError>> for PhaseEnd {
    fn from(outcome: Result<(), PhaseError>) -> Self {
        outcome.map_or_else(|error| Self::Failed(Arc::new(error)), |()| Self::Done)
    }
}

impl fmt::Display for PhaseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(error) => write!(f, "failed: {}", Causes(&***error)),
            Self::Panicked => f.write_str("panicked"),
            Self::Stuck => f.write_str("stuck"),
        }
    }
}

/// How a shutdown ended, phase by phase.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShutdownOutcome {
    /// Name, end and duration of every phase, in the order in which they ran.
    pub phases: Vec<(String, PhaseEnd, Duration)>,
}

impl ShutdownOutcome {
    /// Whether every phase is done.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.phases
            .iter()
            .all(|(_, end, _)| matches!(end, PhaseEnd::Done))
    }

    /// The first error of a phase.
    #[must_use]
    pub fn first_error(&self) -> Option<(&str, &PhaseError)> {
        self.phases.iter().find_map(|(name, end, _)| match end {
            PhaseEnd::Failed(error) => Some((name.as_str(), &**error)),
            _ => None,
        })
    }
}

impl fmt::Display for ShutdownOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, end, _)) in self.phases.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{name}: {end}")?;
        }
        Ok(())
    }
}
