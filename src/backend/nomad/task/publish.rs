//! The main task: the push, with credentials and without foreign code.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backend::local::credentials;
use crate::backend::local::user::BuildUser;
use crate::backend::local::workshop::Workshop;
use crate::build::conclude::Outcome;
use crate::build::{Phase, Plan};
use crate::config::Config;
use crate::log::{Progress, Redactor};
use crate::registry::Auth;
use crate::runner::publish::{self, Publish};
use crate::runner::{Handoff, LogSoFar, Reporter, Settings, WorkDir, entry, exit};

use super::passed_on::PassedOn;
use super::shared_log::SharedLog;
use super::{Place, VariableGate, for_plan, refuse, shared_log, unless_told};

/// How long Nomad may take to write what the task before this one has said.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the task; returns its exit status.
///
/// # Errors
/// When it cannot even begin, or say so.
pub async fn run(config: Config) -> io::Result<u8> {
    let cancel = entry::stop_signal()?;
    let place = Place::of_this_task()?;
    match unless_told(&cancel, prepare(&place, config)).await {
        None => Ok(exit::INTERRUPTED),
        Some((last, Err(error))) => refuse(last, Some(Phase::Publish), &error),
        Some((_, Ok(None))) => Ok(exit::PASSED),
        Some((_, Ok(Some(ready)))) => push(&place, ready, cancel).await,
    }
}

/// Everything for the push; nothing where there are no tags. Beside it where the log stands.
async fn prepare(place: &Place, config: Config) -> (u64, io::Result<Option<Ready>>) {
    let built = shared_log::settled(&place.alloc_dir, &["build"], PATIENCE, |progress| {
        progress.outcome.is_some()
    });
    let built = match built.await {
        Ok(built) => built,
        Err(error) => return (0, Err(error)),
    };
    (built.lines, ready(place, config, &built).await)
}
/// What the push works with.
struct Ready {
    workshop: Workshop<PassedOn>,
    settings: Settings,
    handoff: Handoff,
    auth: Vec<u8>,
}

async fn ready(place: &Place, config: Config, built: &Progress) -> io::Result<Option<Ready>> {
    let plan = place.unpack(place.payload()?, &config, None).await?;
    if plan.tags.is_empty() {
        return Ok(None);
    }
    let log_bytes = SharedLog::of(&place.alloc_dir, &["build"])?.bytes()?;
    let handoff = handoff(&plan, built, log_bytes)?;
    let config = for_plan(config, &plan);
    let auth = credentials::registry(&config)?;
    let workshop = Workshop::new(config, place.dir(), plan, PassedOn::default())?;
    let settings = workshop.settings(&BuildUser::own())?;
    Ok(Some(Ready {
        workshop,
        settings,
        handoff,
        auth,
    }))
}

async fn push(place: &Place, ready: Ready, cancel: CancellationToken) -> io::Result<u8> {
    let auth = Auth::from_slice(&ready.auth);
    let secrets = auth.as_ref().map(Auth::secrets).unwrap_or_default();
    let redactor = Redactor::new(&secrets);
    let (log, limit) = (ready.handoff.log, ready.settings.limits.log_bytes);
    let reporter = Reporter::new(entry::stdout()?, log, limit, redactor);
    let auth = match auth {
        Ok(auth) => auth,
        Err(error) => return Ok(entry::status(&publish::refuse(&reporter, &error.into()))),
    };
    let plan = &ready.workshop.plan;
    let publish = Publish {
        plan,
        settings: &ready.settings,
        work: &WorkDir::new(place.packed()),
        reporter: &reporter,
        handoff: &ready.handoff,
        auth: &auth,
        gate: &VariableGate {
            place,
            id: &plan.build_id,
        },
    };
    Ok(entry::status(&publish.run(cancel).await))
}

/// What was tested, as the log of the task before tells.
fn handoff(plan: &Plan, built: &Progress, log_bytes: u64) -> io::Result<Handoff> {
    let passed = built.outcome == Some(Outcome::Passed);
    let (Some(image), true, Some(started)) = (&built.image, passed, built.started) else {
        return Err(io::Error::other(
            "the log of the task build does not say that it passed",
        ));
    };
    Ok(Handoff {
        image: image.id.clone(),
        log: LogSoFar {
            last_line: built.lines,
            log_bytes,
        },
        deadline: (started / 1000 + i64::from(plan.timeout)).min(plan.latest_end()),
    })
}
