//! `nomad-build schema`: the tools, as frameworks take them in.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use rmcp::model::Tool;
use serde_json::{Value, json};

use crate::build::Kind;
use crate::config::{Config, Given};
use crate::mcp::naming::Naming;
use crate::mcp::tools::definitions;
use crate::schema::strict;

use super::show;

/// Print the tools with their JSON schemas, as a server with this configuration lists them.
#[derive(Debug, Args)]
pub struct Schema {
    /// Only this tool: build, status, logs or kill.
    pub tool: Option<String>,
    /// Whose form they have.
    #[arg(long, value_enum, default_value_t = Format::Mcp)]
    pub format: Format,
    /// Write one file a tool into this directory instead; it is made where it is missing.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Write the table of the kinds of failures into this file instead.
    #[arg(long, conflicts_with_all = ["tool", "out"])]
    pub failures: Option<PathBuf>,
    #[command(flatten)]
    pub given: Given,
}

/// Forms in which tools are declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `Tool` of the Model Context Protocol, as tools/list gives them, with output schemas.
    Mcp,
    /// A function of OpenAI's API, in its strict subset: what may be left out may be null.
    Openai,
    /// A tool of Anthropic's Messages API.
    Anthropic,
}

impl Format {
    /// The declaration of a tool.
    ///
    /// # Errors
    /// When it cannot be told in JSON.
    pub fn declare(self, tool: &Tool) -> serde_json::Result<Value> {
        let description = tool.description.as_deref().unwrap_or_default();
        Ok(match self {
            Self::Mcp => serde_json::to_value(tool)?,
            Self::Openai => json!({
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": description,
                    "parameters": strict(&tool.input_schema),
                    "strict": true,
                },
            }),
            Self::Anthropic => json!({
                "name": tool.name,
                "description": description,
                "input_schema": tool.input_schema,
            }),
        })
    }
}

impl Schema {
    /// Prints or writes them.
    ///
    /// # Errors
    /// When there is no such tool, the configuration is not usable, or a file cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(path) = &self.failures {
            std::fs::write(path, Kind::document()).with_context(|| path.display().to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
        let config = Config::load_values(&self.given)?;
        let naming = Naming::new(&config.mcp.tool_prefix);
        let mut tools: Vec<_> = (definitions(config.mcp.max_wait).iter())
            .map(|definition| naming.tool(&definition.tool))
            .collect();
        if let Some(name) = &self.tool {
            tools.retain(|tool| naming.bare(&tool.name) == naming.bare(name));
            anyhow::ensure!(
                !tools.is_empty(),
                "there is no tool {name}; the tools are {}",
                naming.names()
            );
        }
        match &self.out {
            Some(dir) => {
                std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
                for tool in &tools {
                    let path = dir.join(format!("{}.json", tool.name));
                    let declared = self.format.declare(tool)?;
                    let text = format!("{}\n", serde_json::to_string_pretty(&declared)?);
                    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
                }
            }
            None => {
                let declared: Result<Vec<_>, _> =
                    tools.iter().map(|tool| self.format.declare(tool)).collect();
                let text = serde_json::to_string_pretty(&declared?)?;
                show::print(&text)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
