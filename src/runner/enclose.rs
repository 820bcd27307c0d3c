//! Around the sandbox: the first process of an outer PID namespace.
//!
//! It makes the sandbox's network, starts the sandbox, and waits for it. It stands outside of what
//! foreign code sees, but within the build's user namespace; when it dies, for whatever reason, the
//! kernel ends everything below it: Buildah, the runtime, foreign code, and pasta.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::enter;
use super::network;
use super::settings::Network;

/// Everything about one run of the sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Enclosure {
    /// Its network.
    pub network: Network,
    /// Networks closed to it.
    pub closed: Vec<IpNet>,
    /// File on which the network namespace is mounted.
    pub namespace: PathBuf,
    /// The sandbox.
    pub inside: enter::Spec,
}

/// Runs the sandbox that is described in `file`; returns its exit status (128 + signal, as a shell tells it).
///
/// # Errors
/// When it cannot be started.
pub fn enclose(file: &Path, enclosure: &Enclosure) -> io::Result<u8> {
    let own_binary = std::env::current_exe()?;
    let mut command = match enclosure.network {
        Network::Host => Command::new("unshare"),
        Network::None | Network::Egress => {
            named("network", network::make_namespace(&enclosure.namespace))?;
            if enclosure.network == Network::Egress
                && !named(
                    "network",
                    network::connect(&enclosure.namespace, &enclosure.closed),
                )?
            {
                eprintln!("this host has no way out to a network, so there is none here");
            }
            let mut command = Command::new("nsenter");
            command
                .arg(format!("--net={}", enclosure.namespace.display()))
                .args(["--", "unshare"]);
            command
        }
    };
    command
        .args([
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child=SIGKILL",
            "--",
        ])
        .arg(own_binary)
        .args(["runner", "enter", "--spec"])
        .arg(file)
        .stdin(Stdio::null());
    let status = command.status()?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Whether a command line (as in `/proc/PID/cmdline`) is that of a process outside of the sandbox.
pub fn is_outside(cmdline: &[u8]) -> bool {
    let mut words = cmdline
        .split(|&byte| byte == 0)
        .skip_while(|word| *word != b"runner");
    words.next().is_some()
        && words
            .next()
            .is_some_and(|part| matches!(part, b"enclose" | b"build" | b"job"))
}

fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}
