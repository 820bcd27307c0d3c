//! A Containerfile that is refused before anything runs.

use crate::build::{self, Failure, Kind, Location, Phase};
use crate::containerfile::{Fault, FaultKind};

/// How many places a failure names.
const NAMED: usize = 10;

/// Explains the faults of the Containerfile `file`; `None` where there are none.
pub fn invalid_containerfile(file: &str, faults: &[Fault]) -> Option<Failure> {
    let first = faults.first()?;
    let kind = match first.kind {
        FaultKind::UnknownTarget => Kind::TargetNotFound,
        _ => Kind::ContainerfileInvalid,
    };
    let mut failure = Failure::new(Phase::Source, kind, first.message.clone());
    failure = match first.kind {
        FaultKind::UnknownTarget => {
            failure.with_hint("Name a stage of the Containerfile as target.")
        }
        // Whoever writes ARG without a default leaves it to the call.
        FaultKind::MissingBuildArg => failure
            .at(file, first.line)
            .with_fault(build::Fault::Request)
            .with_hint("Give it in build_args, or a default in the Containerfile."),
        _ => failure.at(file, first.line),
    };
    failure.instruction = first.instruction.clone();
    failure.locations = faults
        .iter()
        .take(NAMED)
        .map(|fault| Location {
            file: file.to_owned(),
            line: Some(fault.line),
            column: None,
            message: Some(fault.message.clone()),
        })
        .collect();
    Some(failure)
}
