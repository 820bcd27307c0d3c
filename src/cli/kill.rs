//! `nomad-build kill`: ends a build gracefully.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::build::status::KillAnswer;

use super::reach::{Reach, arguments};
use super::show;

/// End a build gracefully, so that no image or push is left half done.
#[derive(Debug, Args)]
pub struct Kill {
    /// Id of the build, in full.
    pub build_id: String,
    /// Why; kept with the build.
    #[arg(long)]
    pub reason: Option<String>,
    /// Seconds to wait for its end.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub wait: u32,
    /// Where.
    #[command(flatten)]
    pub reach: Reach,
}

impl Kill {
    /// Asks for the end, and shows what became of it.
    ///
    /// # Errors
    /// When whoever has the build cannot be reached, or refuses.
    pub async fn run(&self) -> anyhow::Result<ExitCode> {
        let mut tools = self.reach.open().await?;
        let asked = json!({"build_id": self.build_id, "reason": self.reason, "wait": self.wait});
        let answer = tools.call("kill", &arguments(asked)).await?;
        self.reach.read::<KillAnswer>(&answer)?;
        show::answer(self.reach.json, &answer, &answer.text)?;
        Ok(ExitCode::SUCCESS)
    }
}
