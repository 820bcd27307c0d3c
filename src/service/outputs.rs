//! What builds have handed over: where it is, and how to get it.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;

use crate::backend::View;
use crate::build::output::OutputStatus;
use crate::build::status::BuildStatus;

use super::{Principal, Service, ToolError};

/// How long an answer waits for outputs that come from elsewhere.
const PATIENCE: Duration = Duration::from_secs(5);

/// An output and the file that has its bytes.
#[derive(Debug)]
pub struct Opened {
    /// What it is.
    pub output: OutputStatus,
    /// Where its bytes are, on this machine; nobody changes them.
    pub path: PathBuf,
}

impl Service {
    /// Says of every output of a build that has ended how to get it.
    pub(super) async fn place_outputs(&self, view: &View, status: &mut BuildStatus) {
        if !view.state().is_final() {
            return;
        }
        for output in status.outputs.iter_mut().filter(|one| one.is_there()) {
            let id = &view.record.id;
            output.uri = Some(format!("build://{id}/outputs/{}", output.name));
        }
        if !self.paths {
            return;
        }
        let found = status.outputs.iter_mut().map(|output| async {
            if output.is_there() {
                let found = self.backend.output(&view.record.id, output).await;
                output.path = found
                    .inspect_err(|error| tracing::warn!(%error, "an output cannot be had"))
                    .ok()
                    .flatten()
                    .map(|path| path.display().to_string());
            }
        });
        // The answer does not wait for what takes long: the next one has it.
        let _ = tokio::time::timeout(PATIENCE, join_all(found)).await;
    }

    /// One output of a build, by its name.
    ///
    /// # Errors
    /// When there is no such build or output, or it is not there any more.
    pub async fn output(
        &self,
        principal: &Principal,
        build: &str,
        name: &str,
    ) -> Result<Opened, ToolError> {
        let view = self.find(principal, build).await?;
        let id = &view.record.id;
        let outputs = match &view.record.end {
            Some(end) => &end.outputs,
            None => {
                return Err(ToolError::not_found(
                    "name",
                    "the build goes on; its outputs come when it has ended",
                    name,
                )
                .expecting("a build that has ended"));
            }
        };
        let there: Vec<&OutputStatus> = outputs.iter().filter(|output| output.is_there()).collect();
        let Some(output) = there.iter().find(|output| output.name == name) else {
            let names: Vec<&str> = there.iter().map(|output| output.name.as_str()).collect();
            let expected = match names.as_slice() {
                [] => "none: this build has handed nothing over".to_owned(),
                names => format!("one of: {}", names.join(", ")),
            };
            return Err(
                ToolError::not_found("name", "the build has no output of this name", name)
                    .expecting(&expected),
            );
        };
        match self.backend.output(id, output).await? {
            Some(path) => Ok(Opened {
                output: (*output).clone(),
                path,
            }),
            None => Err(
                ToolError::not_found("name", "the output is not there any more", name)
                    .expecting("a new build: build with like"),
            ),
        }
    }
}
