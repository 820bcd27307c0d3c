//! A real tiny build in the real sandbox, whose RUN attacks the host (`super::attack`).

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;

use super::attack::{DONE, SAYS, Targets};
use super::network;
use super::probe::{Host, last_words};
use super::process::{Bounds, Ended, capture};
use super::sandbox::{Reach, Readable, Sandbox, Store, remove_tree};
use super::settings::{Network, Settings};
use super::workdir::{WorkDir, write_private};

const TIME: Duration = Duration::from_secs(60);
/// What does not work may work in another moment; and Buildah may lose what a RUN prints, also where
/// `super::leftovers` looks for it. A weaker isolation is not taken for that.
const TRIES: u32 = 3;

/// This program in the container.
const PROGRAM: &str = "/nomad-build";

/// Instructions before the RUN of each attack. The later ones go through bugs of Buildah's mounts: there
/// a build that fails has reached nothing.
const MOUNTS: &[&str] = &[
    "--mount=type=bind,from=evil,source=/link,target=/m",
    "--mount=type=cache,id=../../../../../../../../CANARY,target=/m",
];

/// Tries one isolation.
///
/// # Errors
/// Why it is not to be used: it does not work, or something of the host was reached.
pub async fn run(
    settings: &Settings,
    host: &Host,
    work: &WorkDir,
    bounds: &Bounds,
) -> Result<(), String> {
    let shares_network = settings.network == Network::Host;
    let mut left = TRIES;
    loop {
        left -= 1;
        let tried = try_once(settings, host, work, bounds).await;
        let judged = (tried.as_ref()).map_or_else(
            |error| Err(error.clone()),
            |answers| judge(answers, shares_network),
        );
        let ended = tried.is_ok_and(|answers| !is_worth_another(&answers, shares_network));
        let stopped = bounds.cancel.is_cancelled() || Instant::now() >= bounds.deadline;
        if judged.is_ok() || ended || stopped || left == 0 {
            return judged;
        }
    }
}

async fn try_once(
    settings: &Settings,
    host: &Host,
    work: &WorkDir,
    bounds: &Bounds,
) -> Result<Vec<(Ended, String)>, String> {
    // What one try has left must not keep the next one from its own.
    let place = WorkDir::new(
        work.root()
            .join(format!("probe-{:016x}", fastrand::u64(..))),
    );
    let sandbox = Sandbox {
        settings,
        host,
        work: &place,
        layers: None,
        bases: &[],
    };
    let result = attacks(&sandbox, bounds).await;
    let mut remove = Command::from(remove_tree(&host.own_binary, place.root()));
    let removed = capture(&mut remove, &bounds.within(TIME), 4096).await;
    let answers = result.map_err(|error| error.to_string())?;
    removed.map_err(|error| error.to_string())?;
    Ok(answers)
}

/// Whether another try may come to something else: nothing was reached, and nobody stopped it.
fn is_worth_another(answers: &[(Ended, String)], shares_network: bool) -> bool {
    let ended = |(ended, _): &(Ended, String)| matches!(ended, Ended::Exited(_));
    answers.iter().all(ended) && reached(answers, shares_network).is_none()
}

fn has_attacked(text: &str) -> bool {
    text.lines().any(|line| line == DONE)
}

/// What one of the builds could reach that is not given to it.
fn reached(answers: &[(Ended, String)], shares_network: bool) -> Option<&str> {
    (answers.iter())
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| line.strip_prefix(SAYS)?.trim().strip_prefix("reached "))
        .find(|what| !(shares_network && what.starts_with("network")))
}

/// What of the host the attacks aim at, and a trial that holds has kept them from.
pub fn stopped(network: Network) -> &'static [&'static str] {
    const ALL: &[&str] = &[
        "files (by their paths, by mounts of RUN, through /proc, out of a chroot)",
        "processes",
        "network (loopback, own addresses, abstract sockets)",
    ];
    match network {
        Network::Egress | Network::None => ALL,
        // Reached as it is meant to be: `judge` does not count it.
        Network::Host => ALL.split_last().map_or(ALL, |(_, others)| others),
    }
}

/// The first of the builds must have worked; none may have reached anything that is not given to it.
fn judge(answers: &[(Ended, String)], shares_network: bool) -> Result<(), String> {
    if let Some(what) = reached(answers, shares_network) {
        return Err(format!("a build could reach {what}"));
    }
    match answers.first() {
        Some((Ended::Exited(0), text)) if has_attacked(text) => Ok(()),
        Some((_, text)) => Err(last_words(text)),
        None => Err("no answer".into()),
    }
}

/// Something of the host that listens while the attacks run.
struct Listeners {
    _tcp: Vec<TcpListener>,
    _unix: UnixListener,
    addresses: Vec<SocketAddr>,
    name: String,
}

impl Listeners {
    fn open() -> io::Result<Self> {
        let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let own = network::own_addresses()?;
        let mut addresses = vec![SocketAddr::from((
            Ipv4Addr::LOCALHOST,
            v4.local_addr()?.port(),
        ))];
        let mut tcp = vec![v4];
        // A kernel without IPv6 has nothing to reach there.
        if let Ok(v6) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
            addresses.push(v6.local_addr()?);
            tcp.push(v6);
        }
        for address in own.into_iter().filter(std::net::IpAddr::is_ipv4) {
            addresses.extend(
                addresses
                    .first()
                    .map(|first| SocketAddr::from((address, first.port()))),
            );
        }
        // Containers that share a network have the same process numbers.
        let name = format!("nomad-build-probe-{:016x}", fastrand::u64(..));
        let unix = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name)?)?;
        Ok(Self {
            _tcp: tcp,
            _unix: unix,
            addresses,
            name,
        })
    }
}

async fn attacks(sandbox: &Sandbox<'_>, bounds: &Bounds) -> io::Result<Vec<(Ended, String)>> {
    let (place, src) = (sandbox.work, sandbox.work.src());
    place.prepare()?;
    let canaries = place.root().join("canary");
    let word = format!("canary-{:016x}", fastrand::u64(..));
    fs::create_dir(&canaries)?;
    write_private(&canaries.join("file"), word.as_bytes())?;
    fs::copy(&sandbox.host.own_binary, src.join("program"))?;
    for dir in ["root", "evil"] {
        fs::create_dir(src.join(dir))?;
    }
    symlink(&canaries, src.join("evil/link"))?;
    let volumes = lay_out_system(&src)?;

    let listeners = Listeners::open()?;
    let mut targets = Targets {
        canary: canaries.join("file"),
        word,
        mounted: None,
        listener: listeners.addresses.clone(),
        socket: listeners.name.clone(),
    };
    let mut answers = Vec::new();
    for mount in std::iter::once(None).chain(MOUNTS.iter().map(Some)) {
        targets.mounted = mount.map(|_| "/m".into());
        let mount = mount.map_or(String::new(), |one| {
            one.replace("CANARY", &canaries.display().to_string())
        });
        let mut words = vec![PROGRAM.to_owned(), "runner".into(), "attack".into()];
        words.extend(targets.arguments());
        let words = serde_json::to_string(&words).map_err(io::Error::other)?;
        fs::write(
            src.join("Containerfile"),
            format!(
                "FROM scratch AS evil\nCOPY evil/ /\nFROM scratch\nCOPY root/ /\nRUN {mount} {words}\n"
            ),
        )?;
        let mut argv = sandbox.buildah(Store::Own);
        argv.push("build".into());
        argv.extend(sandbox.isolation());
        argv.extend(volumes.iter().map(|volume| format!("--volume={volume}")));
        argv.extend([
            "--layers=false".into(),
            "--pull=never".into(),
            src.display().to_string(),
        ]);
        let reach = Reach {
            sources: Readable::Yes,
            network: true,
            ..Reach::default()
        };
        let started = sandbox.start(vec![argv], reach)?;
        answers.push(started.capture(&bounds.within(TIME), 64 * 1024).await);
        // What does not work at all needs no further attack.
        if answers
            .first()
            .is_some_and(|(ended, _)| !ended.is_success())
        {
            break;
        }
    }
    Ok(answers)
}

/// What this program needs to run in an empty image: the system's libraries, and the links to them.
fn lay_out_system(src: &Path) -> io::Result<Vec<String>> {
    let mut volumes = vec![format!("{}:{PROGRAM}:ro", src.join("program").display())];
    for dir in ["/usr", "/lib", "/lib32", "/lib64", "/libx32"] {
        match fs::symlink_metadata(dir) {
            Ok(metadata) if metadata.is_symlink() => {
                symlink(
                    fs::read_link(dir)?,
                    src.join("root").join(dir.trim_start_matches('/')),
                )?;
            }
            Ok(_) => volumes.push(format!("{dir}:{dir}:ro")),
            Err(_) => {}
        }
    }
    Ok(volumes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_that_lets_something_through_is_not_taken() {
        let good = (Ended::Exited(0), format!("STEP 1\n{DONE}\n"));
        assert_eq!(judge(std::slice::from_ref(&good), false), Ok(()));
        let leaks = |what: &str| (Ended::Exited(1), format!("{SAYS} reached {what}\n"));
        assert!(judge(&[good.clone(), leaks("a host file by chroot")], true).is_err());
        assert!(judge(&[good.clone(), leaks("network by TCP")], false).is_err());
        assert_eq!(
            judge(&[good.clone(), leaks("network by TCP")], true),
            Ok(())
        );
        // A build that ended well without having attacked proves nothing.
        let mute = [(Ended::Exited(0), "STEP 1\n".into())];
        assert!(judge(&mute, false).is_err());
        assert!(is_worth_another(&mute, false), "and is tried again");
        assert!(!is_worth_another(&[leaks("a host file")], false));
        let stopped = [(Ended::OutOfTime, String::new())];
        assert!(!is_worth_another(&stopped, false));
        assert!(judge(&[(Ended::Exited(1), format!("{DONE}\nError: x\n"))], false).is_err());
    }
}
