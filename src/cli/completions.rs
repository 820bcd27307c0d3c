//! `nomad-build completions` and `nomad-build man`: what shells and readers of manuals take.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, show};

/// Print what a shell completes command lines by.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

impl Completions {
    /// Prints them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "nomad-build", &mut text);
        show::print(String::from_utf8_lossy(&text).trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Write the manual pages.
#[derive(Debug, Args)]
pub struct Man {
    /// Directory for them, one a subcommand. Default: none, and the first is printed.
    pub dir: Option<PathBuf>,
}

impl Man {
    /// Writes them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let command = Cli::command();
        match &self.dir {
            Some(dir) => {
                let failed = || format!("{} cannot be written to", dir.display());
                std::fs::create_dir_all(dir).with_context(failed)?;
                clap_mangen::generate_to(command, dir).with_context(failed)?;
            }
            None => {
                let mut text = Vec::new();
                clap_mangen::Man::new(command).render(&mut text)?;
                show::print(String::from_utf8_lossy(&text).trim_end())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
