//! `nomad-build status`: one build, or all of the caller's.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::build::status::StatusAnswer;

use super::exit;
use super::follow::{self, Followed};
use super::reach::{Reach, arguments, read};
use super::show::{self, Live};

/// Show how a build stands, or list builds, unfinished and newest first.
///
/// Exit status: 0, or 1 for a build that did not succeed.
#[derive(Debug, Args)]
pub struct Status {
    /// Id of a build, or its beginning. Default: none, and builds are listed.
    pub build_id: Option<String>,
    /// Look on until it has ended; without an id, until no build is unfinished.
    #[arg(short, long)]
    pub watch: bool,
    /// Only builds of this name.
    #[arg(long)]
    pub name: Option<String>,
    /// Only builds in this state: queued, running, succeeded, failed, cancelled, timed_out, lost or unfinished.
    #[arg(long = "state", value_name = "STATE")]
    pub states: Vec<String>,
    /// Builds at most.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    pub limit: u32,
    /// Where.
    #[command(flatten)]
    pub reach: Reach,
}

impl Status {
    /// Asks, and shows.
    ///
    /// # Errors
    /// When whoever has the builds cannot be reached, or refuses.
    pub async fn run(&self) -> anyhow::Result<ExitCode> {
        let mut tools = self.reach.open().await?;
        let Some(id) = &self.build_id else {
            return self.list(&mut tools).await;
        };
        if self.watch {
            // Who only looks on ends nothing by going away.
            let live = Live::begin(self.reach.json);
            let watched = tokio::select! {
                watched = follow::watch(&mut tools, id, &live) => watched,
                told = tokio::signal::ctrl_c() => told.map(|()| Followed::Left(exit::LEFT)).map_err(Into::into),
            };
            live.end();
            return match watched? {
                Followed::Ended(answer, status) => {
                    show::status(self.reach.json, &answer, &show::end(&status, None))?;
                    Ok(exit::of_state(&status.state))
                }
                Followed::Left(code) => Ok(ExitCode::from(code)),
            };
        }
        let asked = arguments(json!({"build_id": id, "wait": 0}));
        let answer = tools.call("status", &asked).await?;
        let told: StatusAnswer = read(&answer)?;
        let Some(status) = told.builds.first() else {
            anyhow::bail!("{}", answer.text);
        };
        show::status(self.reach.json, &answer, &show::end(status, None))?;
        Ok(exit::of_state(&status.state))
    }

    async fn list(&self, tools: &mut crate::client::Steady) -> anyhow::Result<ExitCode> {
        let asked = arguments(json!({
            "name": self.name, "state": self.states, "limit": self.limit, "wait": 0,
        }));
        let live = Live::begin(self.reach.json || !self.watch);
        loop {
            let answer = tools.call("status", &asked).await?;
            let told: StatusAnswer = read(&answer)?;
            let counts = told.counts.clone().unwrap_or_default();
            let over = counts.queued + counts.running == 0;
            let table = show::table(&told);
            if !self.watch || over {
                live.end();
                show::answer(self.reach.json, &answer, &table)?;
                return Ok(ExitCode::SUCCESS);
            }
            live.say(&table);
            tokio::select! {
                () = tokio::time::sleep(follow::AGAIN) => {}
                told = tokio::signal::ctrl_c() => {
                    told?;
                    live.end();
                    return Ok(ExitCode::from(exit::LEFT));
                }
            }
        }
    }
}
