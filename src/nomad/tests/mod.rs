//! The client against a real Nomad (`live`), and against one that misbehaves (`faults`).

#[path = "../../../tests/support/nomad.rs"]
#[allow(dead_code, reason = "it serves other tests, too")]
mod agent;
mod faults;
mod live;
mod options;

use super::{Client, Options, Token};
use agent::{Agent, Knobs};

/// A client of this agent with this token.
fn client(agent: &Agent, token: &str) -> Client {
    Client::new(Options {
        token: Token::Fixed(token.into()),
        ..options_at(&agent.address())
    })
    .unwrap()
}

fn options_at(address: &str) -> Options {
    Options {
        backoff: std::time::Duration::from_millis(1),
        ..Options::from_env(|name| (name == "NOMAD_ADDR").then(|| address.to_owned())).unwrap()
    }
}
