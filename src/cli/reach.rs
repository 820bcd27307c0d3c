//! Where the tools are that a command calls: in this process, or on a server elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::assembly::tools_here;
use crate::client::{Answer, Remote, Steady, discovery};
use crate::config::{BackendKind, Config, Given};

use super::show;

/// Which builds a command is about.
#[derive(Debug, Args)]
pub struct Reach {
    /// A server elsewhere, such as https://build.example.com, or the name of its service in Consul, as in
    /// consul://nomad-build. Default: what the configuration says (server), else none, and builds run where --backend says.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// File of the token for it; the token itself may stand in NOMAD_BUILD_TOKEN.
    #[arg(long, env = "NOMAD_BUILD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where builds run, without a server elsewhere. Default: what the configuration says (backend), else on this machine.
    #[arg(long, value_enum, conflicts_with = "server")]
    pub backend: Option<BackendKind>,
    /// Seconds for which a server elsewhere may be away while the build goes on.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub patience: u32,
    /// Print what the tool answers, as JSON.
    #[arg(long)]
    pub json: bool,
    /// What lies over the configuration.
    #[command(flatten)]
    pub given: Given,
}

impl Reach {
    /// Begins to talk with whoever has the builds.
    ///
    /// # Errors
    /// When it cannot be reached, or lets nobody in with this token.
    pub async fn open(&self) -> anyhow::Result<Steady> {
        let Some((server, token_file)) = self.elsewhere()? else {
            let config = Config::load(&self.given)?;
            let kind = self.backend.unwrap_or(config.backend);
            return Ok(Steady::here(tools_here(kind, config).await?));
        };
        let remote = remote(&server, token_file.as_deref()).await?;
        let tools = remote.connect().await?;
        let patience = Duration::from_secs(self.patience.into());
        Ok(Steady::elsewhere(remote, tools, patience))
    }

    /// The server elsewhere, and the file of the token for it; `None`: builds run here.
    fn elsewhere(&self) -> anyhow::Result<Option<(String, Option<PathBuf>)>> {
        let token_file = self.token_file.clone();
        if let Some(server) = &self.server {
            // The file that the configuration names is for the server that it names.
            return Ok(Some((server.clone(), token_file)));
        }
        if self.backend.is_some() {
            return Ok(None);
        }
        // Whoever goes elsewhere need not be able to read the secrets of this machine.
        let config = Config::load_values(&self.given)?;
        let server = config.server;
        Ok(server.map(|server| (server, token_file.or(config.token_file))))
    }

    /// What a tool answered.
    ///
    /// # Errors
    /// With its words, when it refused; machines that asked for JSON are told what there is for them, too.
    pub fn read<T: DeserializeOwned>(&self, answer: &Answer) -> anyhow::Result<T> {
        if let (true, None, Some(refusal)) = (self.json, &answer.value, &answer.refusal) {
            show::error(refusal)?;
        }
        read(answer).map_err(|error| anyhow::anyhow!("{}", show::refusal(&format!("{error:#}"))))
    }

    /// The options that lead another command to the same builds.
    pub fn again(&self) -> String {
        match (&self.server, self.backend) {
            (Some(server), _) => format!(" --server {server}"),
            (None, Some(BackendKind::Nomad)) => " --backend nomad".into(),
            (None, Some(BackendKind::Local)) => " --backend local".into(),
            (None, None) => String::new(),
        }
    }
}

async fn remote(server: &str, token_file: Option<&Path>) -> anyhow::Result<Remote> {
    let server = discovery::locate(server, |name| std::env::var(name).ok()).await?;
    let token = match token_file {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            Some(text.with_context(|| format!("{} cannot be read", file.display()))?)
        }
        None => std::env::var("NOMAD_BUILD_TOKEN").ok(),
    };
    Remote::new(&server, token)
}

/// The arguments of a tool, without those that were not given.
pub fn arguments(value: Value) -> Map<String, Value> {
    let Value::Object(mut map) = value else {
        return Map::new();
    };
    map.retain(|_, value| !(value.is_null() || value.as_array().is_some_and(Vec::is_empty)));
    map
}

/// What a tool answered.
///
/// # Errors
/// With its words, when it refused.
pub fn read<T: DeserializeOwned>(answer: &Answer) -> anyhow::Result<T> {
    let value = answer.value.clone();
    let value = value.with_context(|| answer.text.clone())?;
    serde_json::from_value(value).context("the answer is not one of this version of nomad-build")
}
