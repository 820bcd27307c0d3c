//! Parses the command line, hands over, exits.

use std::process::ExitCode;

use clap::Parser;
use nomad_build::cli::{Cli, exit};
use nomad_build::runner::core_dumps;

// That of musl takes many times as long.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // What whoever started this left open reaches nothing that this starts.
    close_fds::set_fds_cloexec(3, &[]);
    let done = core_dumps::forbid()
        .map_err(Into::into)
        .and_then(|()| nomad_build::app::run(Cli::parse()));
    match done {
        Ok(code) => code,
        Err(error) => {
            // The last word of a program that could not do its work goes to a person.
            eprintln!("nomad-build: {error:#}");
            exit::of_error(&error)
        }
    }
}
