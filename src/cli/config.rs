//! `nomad-build config show`: every value that holds, and where it comes from.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::block_on;
use crate::config::origin::Row;
use crate::config::overlay::Overlay;
use crate::config::reference;
use crate::config::{Config, Given};
use crate::consul::{self, Client, ConsulError, Keys};

/// Exit status when Consul does not answer, or has what is no valid configuration.
const FAULTY: u8 = 1;
/// What stands for a value that is not set.
const UNSET: &str = "(not set)";

/// Print the configuration, and where each value comes from.
#[derive(Debug, Args)]
pub struct ShowConfig {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print each value, and whether it is a default, or from the file, the environment or Consul.
    ///
    /// Secrets are masked. Ends with 1 when Consul does not answer or its keys are no valid configuration: then
    /// what is printed is the configuration without them.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        given: Given,
    },
    /// Print the commented reference of the configuration file: every key, what it is for, and its default.
    Reference,
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
}

/// What lies over the configuration, or why nothing does.
enum Over {
    Off,
    Holds(u64),
    Refused(Vec<String>),
    Unread(String),
}

impl ShowConfig {
    /// Prints it.
    ///
    /// # Errors
    /// When file and environment are no valid configuration.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout();
        let (json, given) = match &self.what {
            What::Show { json, given } => (json, given),
            What::Reference => {
                write!(out, "{}", reference::reference())?;
                return Ok(ExitCode::SUCCESS);
            }
            What::Schema => {
                writeln!(out, "{:#}", reference::json_schema())?;
                return Ok(ExitCode::SUCCESS);
            }
        };
        let (base, sources) = Config::load_with_sources(given)?;
        let (config, overlay, over) = overlaid(base)?;
        let prefix = config.consul.keys_below().unwrap_or_default();
        let rows = sources.rows(&config, &overlay, &prefix);
        if *json {
            let told = json!({"values": rows, "consul": over.json()});
            writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        } else {
            for line in lines(&rows) {
                writeln!(out, "{line}")?;
            }
            if let Some(text) = over.text() {
                eprintln!("{text}");
            }
        }
        Ok(match over {
            Over::Off | Over::Holds(_) => ExitCode::SUCCESS,
            Over::Refused(_) | Over::Unread(_) => ExitCode::from(FAULTY),
        })
    }
}

fn overlaid(base: Config) -> anyhow::Result<(Config, Overlay, Over)> {
    let Some(prefix) = base.consul.keys_below() else {
        return Ok((base, Overlay::default(), Over::Off));
    };
    let without = |base, over| Ok((base, Overlay::default(), over));
    let keys = match read(&base, &prefix)? {
        Ok(keys) => keys,
        Err(error) => return without(base, Over::Unread(error.to_string())),
    };
    let overlay = match Overlay::read(&keys.pairs) {
        Ok(overlay) => overlay,
        Err(faults) => return without(base, Over::Refused(faults)),
    };
    match overlay.over(&base) {
        Ok(config) => Ok((config, overlay, Over::Holds(keys.index))),
        Err(faults) => without(base, Over::Refused(faults)),
    }
}

fn read(base: &Config, prefix: &str) -> anyhow::Result<Result<Keys, ConsulError>> {
    let token = consul::token(base.consul.token_file.clone(), |name| {
        std::env::var(name).ok()
    });
    Ok(block_on(async {
        let client = Client::new(&base.consul, token)?;
        client.keys(prefix, 0, Duration::ZERO).await
    })?)
}

fn lines(rows: &[Row]) -> Vec<String> {
    let assignment = |row: &Row| {
        let value = match row.value.is_null() {
            true => UNSET.to_owned(),
            false => row.value.to_string(),
        };
        format!("{} = {value}", row.key)
    };
    let line = |row: &Row| {
        let from = row.from.as_ref().map(|from| format!(" {from}"));
        let origin = row.origin.as_str();
        format!(
            "{:<50} # {origin}{}",
            assignment(row),
            from.unwrap_or_default()
        )
    };
    rows.iter().map(line).collect()
}

impl Over {
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Off => json!({"state": "off"}),
            Self::Holds(index) => json!({"state": "holds", "index": index}),
            Self::Refused(faults) => json!({"state": "refused", "faults": faults}),
            Self::Unread(why) => json!({"state": "unread", "faults": [why]}),
        }
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Off | Self::Holds(_) => None,
            Self::Refused(faults) => Some(format!(
                "what Consul has is no valid configuration, and nothing of it stands above:\n{}",
                faults.join("\n")
            )),
            Self::Unread(why) => Some(format!("nothing of Consul's stands above: {why}")),
        }
    }
}
