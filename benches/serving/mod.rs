//! A server over HTTP, as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::process::Child;

/// Where the server says on standard error that it listens; what it says then goes on to be read.
pub fn address(child: &mut Child) -> String {
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = said
        .by_ref()
        .map(Result::unwrap)
        .find_map(|line| {
            let rest = line.split_once("address=")?.1;
            Some(rest.split_whitespace().next()?.to_owned())
        })
        .expect("the server does not start");
    std::thread::spawn(move || said.for_each(drop));
    address
}
