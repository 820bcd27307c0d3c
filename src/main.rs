//! Parses the command line, hands over, exits.

use std::process::ExitCode;

use clap::Parser;
use nomad_build::cli::Cli;

fn main() -> ExitCode {
    // What whoever started this left open reaches nothing that this starts.
    close_fds::set_fds_cloexec(3, &[]);
    match nomad_build::app::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // The last word of a program that could not do its work goes to a person.
            eprintln!("nomad-build: {error:#}");
            ExitCode::from(2)
        }
    }
}
