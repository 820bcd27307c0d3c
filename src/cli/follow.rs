//! Waiting for the end of a build, while people see how it goes.

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::build::State;
use crate::build::request::MAX_WAIT;
use crate::build::status::{BuildStatus, KillAnswer, StatusAnswer};
use crate::client::{Answer, Away, Steady};

use super::exit;
use super::reach::{Reach, arguments, read};
use super::show::{self, Live};

/// How long to wait for the next change, where people look on.
const LOOK: u32 = 2;

/// How the waiting went.
pub enum Followed {
    /// The build has ended by itself.
    Ended(Box<Ended>),
    /// Ctrl-C ended it.
    Cancelled(Box<Ended>),
    /// It was left, with this exit status.
    Left(u8),
}

/// A build at its end.
pub struct Ended {
    /// What `status` answered.
    pub answer: Answer,
    /// The build in it.
    pub status: BuildStatus,
}

/// Waits for the end of a build. Ctrl-C ends it, a second one leaves it.
///
/// # Errors
/// When the call is refused.
pub async fn to_the_end(tools: &mut Steady, id: &str, reach: &Reach) -> anyhow::Result<Followed> {
    let live = Live::begin(reach.json);
    let mut interrupts = signal(SignalKind::interrupt())?;
    let ended = tokio::select! {
        ended = watch(tools, id, &live) => Some(ended),
        _ = interrupts.recv() => None,
    };
    live.end();
    match ended {
        Some(Ok(ended)) => Ok(Followed::Ended(Box::new(ended))),
        Some(Err(error)) => away(error, id, reach),
        None => end(tools, id, reach, &mut interrupts).await,
    }
}

/// A build goes on whose server does not answer any more.
fn away(error: anyhow::Error, id: &str, reach: &Reach) -> anyhow::Result<Followed> {
    let away = error.downcast::<Away>()?;
    Ok(left(
        &format!("{away}\nthe build {id} goes on"),
        id,
        reach,
        exit::AWAY,
    ))
}

/// Looks on until a build has ended.
///
/// # Errors
/// When the call is refused, or the server is away for too long.
pub async fn watch(tools: &mut Steady, id: &str, live: &Live) -> anyhow::Result<Ended> {
    let wait = if live.is_seen() { LOOK } else { MAX_WAIT };
    let asked = arguments(json!({"build_id": id, "wait": wait, "until": "finished"}));
    loop {
        let answer = tools.call("status", &asked).await?;
        let told: StatusAnswer = read(&answer)?;
        let status = told.builds.into_iter().next();
        let status = status.ok_or_else(|| anyhow::anyhow!("{}", answer.text))?;
        if !status.is_unfinished() {
            return Ok(Ended { answer, status });
        }
        live.show(&status);
    }
}

/// Ends the build, or leaves it when that is asked for, too.
async fn end(
    tools: &mut Steady,
    id: &str,
    reach: &Reach,
    interrupts: &mut Signal,
) -> anyhow::Result<Followed> {
    let asked = tokio::select! {
        asked = ask_for_the_end(tools, id) => asked,
        _ = interrupts.recv() => {
            let why = format!("whether the build {id} was asked to end is not known");
            return Ok(left(&why, id, reach, exit::LEFT));
        }
    };
    if let Err(error) = asked {
        return away(error, id, reach);
    }
    show::note(&format!(
        "ending the build {id}; Ctrl-C again does not wait for that"
    ));
    let live = Live::begin(true);
    let ended = tokio::select! {
        ended = watch(tools, id, &live) => ended,
        _ = interrupts.recv() => {
            let why = format!("the build {id} was asked to end, and does that without you");
            return Ok(left(&why, id, reach, exit::LEFT));
        }
    };
    match ended {
        Ok(ended) if ended.status.state() == Some(State::Cancelled) => {
            Ok(Followed::Cancelled(Box::new(ended)))
        }
        // It was too late for that.
        Ok(ended) => Ok(Followed::Ended(Box::new(ended))),
        Err(error) => away(error, id, reach),
    }
}

async fn ask_for_the_end(tools: &mut Steady, id: &str) -> anyhow::Result<()> {
    let asked = arguments(json!({"build_id": id, "wait": 0, "reason": "Ctrl-C"}));
    read::<KillAnswer>(&tools.call("kill", &asked).await?).map(drop)
}

fn left(why: &str, id: &str, reach: &Reach, code: u8) -> Followed {
    show::note(&format!(
        "{why}; come back with nomad-build status{} --watch {id}",
        reach.again()
    ));
    Followed::Left(code)
}
