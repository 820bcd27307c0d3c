//! Tests. What Buildah prints was taken from runs of 1.28.2 and 1.43.2.

mod faults;
mod hostile;
mod images;
mod layout;
mod locate;
mod named;
mod properties;
mod steps;
mod targets;

use super::{Containerfile, Fault, FaultKind};

/// Reads a file all of whose steps are sound.
fn parse(text: &str) -> Containerfile {
    Containerfile::parse(text).unwrap()
}

fn faults(text: &str) -> Vec<Fault> {
    Containerfile::parse(text).unwrap_err()
}

/// The only fault of a file: its line, kind and message.
fn fault(text: &str) -> (u32, FaultKind, String) {
    match faults(text).as_slice() {
        [fault] => (fault.line, fault.kind, fault.message.clone()),
        other => panic!("not one fault: {other:?}"),
    }
}

fn args(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}
