//! Around the sandbox: the first process of an outer PID namespace.
//!
//! It makes the sandbox's network, which may take place while nobody knows yet what will be in the sandbox;
//! when it is told that this is known, it starts the sandbox, watches what it writes, and waits for it.
//! It stands outside of what foreign code sees, but within the build's user namespace; when it dies, for
//! whatever reason, the kernel ends everything below it: Buildah, the runtime, foreign code, and pasta.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};
use serde::{Deserialize, Serialize};

use super::enter;
use super::network::{self, WayOut};
use super::runtime;
use super::settings::Network;
use super::usage::{Ceiling, measure};
use super::userns;
use super::workdir::{read_json, write_json};

/// What is around one run of the sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Enclosure {
    /// Its network.
    pub network: Network,
    /// Networks closed to it.
    pub closed: Vec<IpNet>,
    /// File on which the network namespace is mounted.
    pub namespace: PathBuf,
    /// There while it runs; one that was killed leaves it.
    pub running: PathBuf,
    /// File of the [`Contents`], read when standard input says so.
    pub contents: PathBuf,
}

/// What is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// What it may write to.
    pub watch: Watch,
    /// Where the runtime keeps its containers.
    pub containers: PathBuf,
    /// The sandbox.
    pub inside: enter::Spec,
}

/// A bound on what the sandbox writes to the disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// Where it writes. Layers that are there when it begins do not count.
    pub roots: Vec<PathBuf>,
    /// How much may be there.
    pub ceiling: Ceiling,
    /// Written with the limit that was reached, before everything is ended.
    pub report: PathBuf,
}

/// Between two looks at the disk, at least; a look at much takes long, and the next one comes later.
const INTERVAL: Duration = Duration::from_millis(250);
/// Share of the time that looking may take.
const SHARE: u32 = 10;

impl Watch {
    /// Names of the layers that are there.
    fn baseline(&self) -> HashSet<OsString> {
        self.roots
            .iter()
            .flat_map(|root| {
                fs::read_dir(root.join("overlay"))
                    .into_iter()
                    .flatten()
                    .flatten()
            })
            .map(|entry| entry.file_name())
            .collect()
    }

    /// Ends the process, and with it the sandbox, when it has written too much.
    fn end_at_the_limit(&self, process: Pid) {
        let baseline = self.baseline();
        let mut pause = INTERVAL;
        loop {
            std::thread::sleep(pause);
            let begun = Instant::now();
            if let Some(over) = measure(&self.roots, &baseline, self.ceiling).over(self.ceiling) {
                if let Err(error) = write_json(&self.report, &over) {
                    eprintln!("the limit on the disk was reached, and {error}");
                }
                let _ = kill_process(process, Signal::KILL);
                return;
            }
            pause = INTERVAL.max(begun.elapsed() * SHARE);
        }
    }
}

/// Runs the sandbox; returns its exit status (128 + signal, as a shell tells it).
///
/// # Errors
/// When it cannot be started, or is not wanted any more.
pub fn enclose(enclosure: &Enclosure) -> io::Result<u8> {
    fs::write(&enclosure.running, b"")?;
    let result = run(enclosure);
    if result.as_ref().map_or(true, |status| status.exited()) {
        fs::remove_file(&enclosure.running)?;
    }
    let status = result?;
    let killed = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(killed);
    Ok(code
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX))
}

fn run(enclosure: &Enclosure) -> io::Result<WaitStatus> {
    userns::die_with_parent()?;
    let (gate, opener) = io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["runner", "enter", "--spec"])
        .arg(&enclosure.contents)
        .stdin(gate);
    let (sandbox, way_out) = std::thread::scope(|scope| {
        let (made, is_made) = mpsc::channel();
        let starting = scope.spawn(|| start(command, enclosure, made));
        // The sandbox is made while pasta makes its network.
        let way_out = (is_made.recv().ok())
            .map(|()| named("network", WayOut::begin(&enclosure.namespace)))
            .transpose();
        let sandbox = (starting.join())
            .unwrap_or_else(|_| Err(io::Error::other("the sandbox cannot be started")));
        Ok::<_, io::Error>((sandbox?, way_out?))
    })?;
    if let Some(way_out) = way_out
        && !named("network", way_out.wait())?
    {
        eprintln!("this host has no way out to a network, so there is none here");
    }
    let contents: Contents = read_json(&enclosure.contents)?;
    enter::open(opener)?;
    let watch = contents.watch;
    std::thread::spawn(move || watch.end_at_the_limit(sandbox));
    let containers = contents.containers;
    std::thread::spawn(move || {
        runtime::wait_for_an_orphan(&containers);
        eprintln!("the runtime was killed while it made a container");
        let _ = kill_process(sandbox, Signal::KILL);
    });
    wait(sandbox)
}

/// Makes the network, and tells when it is ready for a way out; as soon as it is known what will be in the
/// sandbox, starts a command in its namespaces, as the first process of a PID namespace: nobody in
/// there can kill it, so a signal that ends it came from outside. Changes the calling thread, which must
/// end then.
fn start(mut command: Command, enclosure: &Enclosure, made: mpsc::Sender<()>) -> io::Result<Pid> {
    match enclosure.network {
        Network::Host => {}
        Network::None => named("network", network::enter_none())?,
        Network::Egress => {
            named("network", network::enter_closed(&enclosure.closed))?;
            named("network", network::pin(&enclosure.namespace))?;
            // Nobody listens any more when the other side has failed.
            let _ = made.send(());
        }
    }
    drop(made);
    enter::pass()?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWPID,
    )?;
    i32::try_from(command.spawn()?.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("the sandbox has no process"))
}

/// Waits for the sandbox. The only other child is pasta: a sandbox whose network is gone is ended.
fn wait(sandbox: Pid) -> io::Result<WaitStatus> {
    loop {
        match rustix::process::wait(WaitOptions::empty())? {
            Some((pid, status)) if pid == sandbox => return Ok(status),
            Some((_, status)) => {
                eprintln!("the sandbox has lost its network: {}", gone(status));
                let _ = kill_process(sandbox, Signal::KILL);
            }
            None => {}
        }
    }
}

/// How pasta has ended.
fn gone(status: WaitStatus) -> String {
    match (status.terminating_signal(), status.exit_status()) {
        (Some(signal), _) => format!("pasta was killed by signal {signal}"),
        (_, Some(code)) => format!("pasta ended with status {code}"),
        _ => "pasta has stopped".to_owned(),
    }
}

/// Whether a command line (as in `/proc/PID/cmdline`) is that of a process outside of the sandbox.
pub fn is_outside(cmdline: &[u8]) -> bool {
    let mut words = cmdline
        .split(|&byte| byte == 0)
        .skip_while(|word| *word != b"runner");
    words.next().is_some()
        && words
            .next()
            .is_some_and(|part| matches!(part, b"unshare" | b"enclose" | b"build" | b"job"))
}

fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}
