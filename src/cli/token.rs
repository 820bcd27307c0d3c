//! `nomad-build token`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::build::validate::is_name;
use crate::config::{Config, Given};
use crate::http::tokens::{self, Token};

/// Make a token for `serve --http`, and print it: once, for only its digest is kept.
#[derive(Debug, Args)]
pub struct MakeToken {
    /// Whose token it is: the principal of the builds that are asked for with it.
    pub name: String,
    /// The file of tokens to add it to, if not that of the configuration.
    #[arg(long, conflicts_with = "print")]
    pub file: Option<PathBuf>,
    /// Do not add it: print the line of a file of tokens on standard error.
    #[arg(long)]
    pub print: bool,
    /// What lies over the configuration.
    #[command(flatten)]
    pub given: Given,
}

impl MakeToken {
    /// Makes it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn run(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            is_name(&self.name),
            "{:?} is no name: letters, digits, . _ -, at most 64",
            self.name
        );
        let token = Token::new()?;
        let line = token.line(&self.name);
        if self.print {
            eprint!("{line}");
        } else {
            let file = match &self.file {
                Some(file) => file.clone(),
                None => Config::load(&self.given)?.tokens_file(),
            };
            tokens::add(&file, &line)
                .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
        }
        writeln!(std::io::stdout(), "{}", token.secret())?;
        Ok(())
    }
}
