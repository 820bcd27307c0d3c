//! `nomad-build schema`: the tools, as frameworks take them in.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::build::request::MAX_WAIT;
use crate::mcp::tools::definitions;

/// Print the tools with their JSON schemas.
#[derive(Debug, Args)]
pub struct Schema {
    /// Only this tool: build, status, logs or kill.
    pub tool: Option<String>,
    /// Write one file a tool into this directory instead.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

impl Schema {
    /// Prints or writes them.
    ///
    /// # Errors
    /// When there is no such tool, or a file cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut tools: Vec<_> = definitions(MAX_WAIT)
            .into_iter()
            .map(|definition| definition.tool)
            .collect();
        if let Some(name) = &self.tool {
            tools.retain(|tool| tool.name == *name);
            anyhow::ensure!(
                !tools.is_empty(),
                "there is no tool {name}; the tools are build, status, logs and kill"
            );
        }
        match &self.out {
            Some(dir) => {
                for tool in &tools {
                    let path = dir.join(format!("{}.json", tool.name));
                    let text = format!("{}\n", serde_json::to_string_pretty(tool)?);
                    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
                }
            }
            None => writeln!(
                std::io::stdout(),
                "{}",
                serde_json::to_string_pretty(&tools)?
            )?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
