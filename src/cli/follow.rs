//! Waiting for the end of a build, while people see how it goes.

use serde_json::json;

use crate::build::request::MAX_WAIT;
use crate::build::status::{BuildStatus, StatusAnswer};
use crate::client::{Answer, Away, Steady};

use super::exit;
use super::reach::{Reach, arguments, read};
use super::show::{self, Live};

/// How long to wait for the next change, where people look on.
const LOOK: u32 = 2;

/// How the waiting went.
pub enum Followed {
    /// The build has ended.
    Ended(Answer, Box<BuildStatus>),
    /// It was left, with this exit status.
    Left(u8),
}

/// Waits for the end of a build. Ctrl-C ends it, a second one leaves it.
///
/// # Errors
/// When the call is refused.
pub async fn to_the_end(tools: &mut Steady, id: &str, reach: &Reach) -> anyhow::Result<Followed> {
    let live = Live::begin(reach.json);
    let ended = tokio::select! {
        ended = watch(tools, id, &live) => Some(ended),
        told = tokio::signal::ctrl_c() => {
            told?;
            None
        }
    };
    live.end();
    match ended {
        Some(Ok(followed)) => Ok(followed),
        Some(Err(error)) => match error.downcast::<Away>() {
            Ok(away) => Ok(left(&away.to_string(), id, reach, exit::AWAY)),
            Err(error) => Err(error),
        },
        None => end(tools, id, reach).await,
    }
}

/// Looks on until a build has ended.
///
/// # Errors
/// When the call is refused, or the server is away for too long.
pub async fn watch(tools: &mut Steady, id: &str, live: &Live) -> anyhow::Result<Followed> {
    let wait = if live.is_seen() { LOOK } else { MAX_WAIT };
    let asked = arguments(json!({"build_id": id, "wait": wait, "until": "finished"}));
    loop {
        let answer = tools.call("status", &asked).await?;
        let told: StatusAnswer = read(&answer)?;
        let status = told.builds.into_iter().next();
        let status = status.ok_or_else(|| anyhow::anyhow!("{}", answer.text))?;
        if !status.is_unfinished() {
            return Ok(Followed::Ended(answer, Box::new(status)));
        }
        live.show(&status);
    }
}

/// Ends the build, or leaves it when that is asked for, too.
async fn end(tools: &mut Steady, id: &str, reach: &Reach) -> anyhow::Result<Followed> {
    show::note(&format!(
        "ending the build {id}; Ctrl-C again leaves it running"
    ));
    let asked = arguments(json!({"build_id": id, "wait": MAX_WAIT, "reason": "Ctrl-C"}));
    tokio::select! {
        killed = tools.call("kill", &asked) => match killed {
            Ok(answer) => {
                show::note(&answer.text);
                Ok(Followed::Left(exit::INTERRUPTED))
            }
            Err(away) => Ok(left(&away.to_string(), id, reach, exit::AWAY)),
        },
        _ = tokio::signal::ctrl_c() => Ok(left("left", id, reach, exit::LEFT)),
    }
}

fn left(why: &str, id: &str, reach: &Reach, code: u8) -> Followed {
    show::note(&format!(
        "{why}\nthe build {id} goes on; come back with nomad-build status{} --watch {id}",
        reach.again()
    ));
    Followed::Left(code)
}
