//! `kill`: asks for the end, and waits for it.

use crate::backend::View;
use crate::build::id::BuildIdError;
use crate::build::record::{CancelMark, CancelOutcome};
use crate::build::request::{KillRequest, Until};
use crate::build::status::{KillAnswer, KillResult};
use crate::build::{BuildId, State, clean};
use crate::runner::reporter::now_ms;

use super::wait::Waiting;
use super::{Principal, Service, ToolError, present};

/// Default of `wait`, in seconds.
const DEFAULT_WAIT: u32 = 15;

impl Service {
    /// Asks for the end of a build; right in any phase, before the start and after the end.
    ///
    /// # Errors
    /// When there is no such build.
    pub async fn kill(
        &self,
        principal: &Principal,
        request: &KillRequest,
        waiting: &mut Waiting<'_>,
    ) -> Result<KillAnswer, ToolError> {
        let deadline = self.deadline(request.wait.unwrap_or(DEFAULT_WAIT));
        let name = request.build_id.trim();
        let id = name.strip_prefix("build://").unwrap_or(name);
        if let Err(error) = id.parse::<BuildId>() {
            let problem = match error {
                BuildIdError::Form => "it is not a whole build id",
                BuildIdError::Check => "there is no such build: this id is mistyped",
            };
            return Err(ToolError::not_found("build_id", problem, name)
                .expecting("the id in full, so that no other build is ended by mistake"));
        }
        let view = self.find(principal, name).await?;
        let id = view.record.id;
        let mark = CancelMark {
            by: principal.0.clone(),
            reason: request
                .reason
                .as_deref()
                .map(|reason| clean::short(reason, 200)),
            at: now_ms(),
        };
        let outcome = self.backend.cancel(&id, mark).await?;
        let view = self.backend.look(&id).await?;
        let view = self.wait(view, Until::Finished, deadline, waiting).await?;
        Ok(answer(&view, outcome))
    }
}

fn answer(view: &View, outcome: CancelOutcome) -> KillAnswer {
    let status = present::full(view, now_ms(), None);
    let state = view.state();
    let kill_result = match (outcome, state) {
        (CancelOutcome::Ended, _) => KillResult::AlreadyFinished,
        (_, State::Cancelled) => KillResult::Cancelled,
        (_, state) if state.is_final() => KillResult::AlreadyFinished,
        _ => KillResult::Stopping,
    };
    let summary = match (outcome, kill_result) {
        (CancelOutcome::Committed, KillResult::Stopping) => format!(
            "{} is writing its tags and finishes that; it is too late to stop it",
            status.build_id
        ),
        (_, KillResult::Stopping) => format!("{} is stopping at a safe point", status.build_id),
        (_, KillResult::AlreadyFinished) => format!("it had ended: {}", status.summary),
        (_, KillResult::Cancelled) => status.summary.clone(),
    };
    KillAnswer {
        build_id: status.build_id.clone(),
        kill_result,
        state: state.as_str().into(),
        summary,
        image: status.image.filter(|image| !image.tags.is_empty()),
        notes: Vec::new(),
        next: (kill_result == KillResult::Stopping).then(|| {
            format!(
                r#"status {{"build_id": "{}", "wait": 45}}"#,
                status.build_id
            )
        }),
    }
}
