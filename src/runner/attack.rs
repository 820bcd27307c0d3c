//! What the probe runs inside the sandbox: tries to get at the host, and says what it reached.
//!
//! It is the same program, started by a RUN of a tiny build as root of the container, with the whole
//! of the host's `/usr` at hand. It knows where a canary file of the host lies, and where a listener
//! of the host waits.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::process::{chroot, fchdir};

use super::enclose;

/// Begins each line that the probe reads.
pub const SAYS: &str = "nomad-build-probe:";
/// The last of these lines.
pub const DONE: &str = "nomad-build-probe: done";
/// How long a connection may take; what drops packets is as closed as what refuses them.
const CONNECT: Duration = Duration::from_millis(300);

/// Where the host's canaries are.
#[derive(Debug, Clone, Args)]
pub struct Targets {
    /// A file of the host.
    #[arg(long)]
    pub canary: PathBuf,
    /// What stands in it.
    #[arg(long)]
    pub word: String,
    /// Where a hostile mount may have put its directory.
    #[arg(long)]
    pub mounted: Option<PathBuf>,
    /// Addresses at which the host listens.
    #[arg(long)]
    pub listener: Vec<SocketAddr>,
    /// Name of an abstract Unix socket at which it listens.
    #[arg(long)]
    pub socket: String,
}

impl Targets {
    /// As arguments of `runner attack`.
    pub fn arguments(&self) -> Vec<String> {
        let mut words = vec![
            "--canary".to_owned(),
            self.canary.display().to_string(),
            "--word".to_owned(),
            self.word.clone(),
            "--socket".to_owned(),
            self.socket.clone(),
        ];
        if let Some(mounted) = &self.mounted {
            words.extend(["--mounted".to_owned(), mounted.display().to_string()]);
        }
        for listener in &self.listener {
            words.extend(["--listener".to_owned(), listener.to_string()]);
        }
        words
    }
}

/// Tries everything; prints a line for each thing of the host that was reached.
///
/// # Errors
/// When nothing can be printed.
pub fn attack(targets: &Targets) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (what, how) in network(targets).into_iter().chain(host(targets)) {
        writeln!(out, "{SAYS} reached {what} by {how}")?;
    }
    writeln!(out, "{DONE}")
}

fn network(targets: &Targets) -> Vec<(&'static str, String)> {
    let connected = targets
        .listener
        .iter()
        .filter(|address| TcpStream::connect_timeout(address, CONNECT).is_ok())
        .map(|address| ("network", format!("TCP to {address}")));
    let socket = UnixAddr::from_abstract_name(&targets.socket)
        .and_then(|address| UnixStream::connect_addr(&address))
        .map(|_| ("network", "an abstract socket".to_owned()));
    connected.chain(socket).collect()
}

fn host(targets: &Targets) -> Vec<(&'static str, String)> {
    let mut reached = Vec::new();
    let reads =
        |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains(&targets.word));
    let below =
        |root: &Path| root.join(targets.canary.strip_prefix("/").unwrap_or(&targets.canary));
    if reads(&targets.canary) {
        reached.push(("a host file", "its path".to_owned()));
    }
    if let (Some(mounted), Some(name)) = (&targets.mounted, targets.canary.file_name())
        && reads(&mounted.join(name))
    {
        reached.push(("a host file", "a mount of RUN".to_owned()));
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry
            .file_name()
            .as_encoded_bytes()
            .first()
            .is_some_and(u8::is_ascii_digit)
        {
            continue;
        }
        let process = entry.path();
        if reads(&below(&process.join("root"))) {
            reached.push(("a host file", format!("{}/root", process.display())));
        }
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        if enclose::is_outside(&words) {
            reached.push(("a host process", process.display().to_string()));
        }
    }
    // The last one: afterwards this process is somewhere else.
    if escape().is_ok() && reads(&targets.canary) {
        reached.push(("a host file", "chroot".to_owned()));
    }
    reached
}

/// The classic way out of a chroot: keep a handle outside of a second one (chroot(2), "Notes").
fn escape() -> std::io::Result<()> {
    let (outside, inner) = (fs::File::open("/")?, "/tmp-nomad-build-probe");
    fs::create_dir_all(inner)?;
    chroot(inner)?;
    fchdir(&outside)?;
    for _ in 0..64 {
        std::env::set_current_dir("..")?;
    }
    Ok(chroot(".")?)
}
