//! `nomad-build status`: one build, or all of the caller's.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::build::status::{BuildStatus, StatusAnswer};
use crate::client::{Answer, Steady};

use super::exit;
use super::follow;
use super::reach::{Reach, arguments};
use super::show::{self, Live};

/// How often a list is looked at again.
const AGAIN: Duration = Duration::from_secs(2);

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
    #[arg(long, conflicts_with = "build_id")]
    pub name: Option<String>,
    /// Only builds in this state: queued, running, succeeded, failed, cancelled, timed_out, lost or unfinished.
    #[arg(long = "state", value_name = "STATE", conflicts_with = "build_id")]
    pub states: Vec<String>,
    /// Builds at most.
    #[arg(
        short = 'n',
        long,
        value_name = "COUNT",
        default_value_t = 20,
        conflicts_with = "build_id"
    )]
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
        match &self.build_id {
            None => self.list(&mut tools).await,
            Some(id) if self.watch => self.watch(&mut tools, id).await,
            Some(id) => self.once(&mut tools, id).await,
        }
    }

    async fn once(&self, tools: &mut Steady, id: &str) -> anyhow::Result<ExitCode> {
        let asked = arguments(json!({"build_id": id, "wait": 0}));
        let answer = tools.call("status", &asked).await?;
        let told: StatusAnswer = self.reach.read(&answer)?;
        let status = told.builds.first();
        self.tell(&answer, status.with_context(|| answer.text.clone())?)
    }

    /// Who only looks on ends nothing by going away.
    async fn watch(&self, tools: &mut Steady, id: &str) -> anyhow::Result<ExitCode> {
        let live = Live::begin(self.reach.json);
        let watched = tokio::select! {
            watched = follow::watch(tools, id, &live) => watched.map(Some),
            told = tokio::signal::ctrl_c() => told.map(|()| None).map_err(Into::into),
        };
        live.end();
        match watched? {
            Some(ended) => self.tell(&ended.answer, &ended.status),
            None => Ok(ExitCode::from(exit::LEFT)),
        }
    }

    fn tell(&self, answer: &Answer, status: &BuildStatus) -> anyhow::Result<ExitCode> {
        show::status(
            self.reach.json,
            answer,
            &show::end(status, None, &self.reach.again()),
        )?;
        Ok(exit::of(status))
    }

    async fn list(&self, tools: &mut Steady) -> anyhow::Result<ExitCode> {
        let asked = arguments(json!({
            "name": self.name, "state": self.states, "limit": self.limit, "wait": 0,
        }));
        let live = Live::begin(self.reach.json || !self.watch);
        loop {
            let answer = tools.call("status", &asked).await?;
            let told: StatusAnswer = self.reach.read(&answer)?;
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
                () = tokio::time::sleep(AGAIN) => {}
                told = tokio::signal::ctrl_c() => {
                    told?;
                    live.end();
                    return Ok(ExitCode::from(exit::LEFT));
                }
            }
        }
    }
}
