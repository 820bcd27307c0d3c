//! What this host can do: which Buildah, and the strongest isolation in which a real tiny build
//! runs and its attacks reach nothing of the host (`super::trial`).
//!
//! The answer is kept per boot, user, binaries and settings: a probe costs some seconds. A refusal is not
//! kept: each build finds out anew whether it was mended. That a stronger isolation did not work is believed for
//! an hour: it may have been mended, or have been the fault of a moment.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::build::clean::abridged;
use crate::build::{Failure, Kind, Phase};

use super::cache::Cache;
use super::container;
use super::phases::now_seconds;
use super::process::{Bounds, Ended, capture};
use super::sandbox::{environment, storage};
use super::settings::{Isolation, Network, Settings};
use super::trial;
use super::workdir::{WorkDir, read_untrusted, write_json};

const PROBE_TIME: Duration = Duration::from_secs(60);

/// What every sandbox is made with.
const TOOLS: [&str; 2] = ["newuidmap", "newgidmap"];
/// What a network of its own is made with.
const NETWORK_TOOLS: [&str; 2] = ["pasta", "ip"];
/// The runtime of the stronger isolation, where it is there.
const RUNTIME: &str = "runc";

/// Where the answer is kept.
const KEPT: &str = "probe.json";
/// Bytes it may have.
const MOST_KEPT: u64 = 64 << 10;

/// The device by which pasta gives a network.
pub(super) const TUN: &str = "/dev/net/tun";

/// How a host gets it.
const LOAD_TUN: &str = "Load the kernel module tun and give everybody the device: modprobe tun; chmod 0666 /dev/net/tun. Or set sandbox.network to none or host.";

/// What a host must have.
const NEEDS: &str = "Unprivileged user namespaces, newuidmap with setuid or capabilities, and 65536 subordinate ids in /etc/subuid and /etc/subgid for the user are needed.";

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Path of Buildah.
    pub buildah: String,
    /// Its version.
    pub version: String,
    /// Home of the user in the password database.
    pub home: PathBuf,
    /// Path of this program.
    pub own_binary: PathBuf,
    /// Options that isolate RUN.
    pub isolation: Vec<String>,
    /// Stronger isolations that were tried and not taken, each with why.
    #[serde(default)]
    pub refused: Vec<String>,
    /// A static init for tests.
    pub init: PathBuf,
}

impl Host {
    /// Whether Buildah is of this version, or a newer one.
    pub fn is_since(&self, major: u32, minor: u32) -> bool {
        let numbers = self.version.split('.');
        let mut numbers = numbers.map_while(|part| part.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        version >= (major, minor)
    }

    /// What builds leave for later ones: versions of Buildah must not share a store.
    pub fn cache(&self, user: &Path) -> Cache {
        Cache::new(user, &self.version)
    }
}

/// Seconds for which a weaker isolation is taken without trying the stronger ones again.
const WEAKER: i64 = 3600;

#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    host: Host,
    /// When it was found, in seconds since 1970.
    #[serde(default)]
    at: i64,
}

impl Kept {
    fn answers(&self, key: &str) -> bool {
        let is_young = || (0..WEAKER).contains(&(now_seconds() - self.at));
        self.key == key && (self.host.refused.is_empty() || is_young())
    }
}

/// What a probe found, and whether it tried that itself: else an earlier one did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// What it found.
    pub host: Host,
    /// Whether it was tried just now.
    pub tried: bool,
}

/// Finds out what this host can do, or takes the answer of an earlier probe.
///
/// # Errors
/// A failure with fault `operator` that says what is missing.
pub async fn probe(settings: &Settings, work: &WorkDir, bounds: &Bounds) -> Result<Host, Failure> {
    let (found, key) = find_out(settings, &settings.cache, work, bounds).await?;
    let host = found.host;
    if found.tried {
        let kept = Kept {
            key,
            host: host.clone(),
            at: now_seconds(),
        };
        keep(&settings.cache.join(KEPT), &kept);
    }
    Ok(host)
}

/// The same for who only wants to know it: the earlier answer is looked for in `cache`, and none is kept.
///
/// # Errors
/// As [`probe`].
pub async fn look(
    settings: &Settings,
    cache: &Path,
    work: &WorkDir,
    bounds: &Bounds,
) -> Result<Found, Failure> {
    let found = find_out(settings, cache, work, bounds).await?;
    Ok(found.0)
}

/// What an earlier probe has found in the very place where this process is, for builds of the user `uid`
/// with these settings.
pub fn known(settings: &Settings, uid: u32) -> Option<Host> {
    let buildah = find(&settings.buildah)?;
    let own_binary = std::env::current_exe().ok()?;
    earlier(&settings.cache, &key(settings, uid, &buildah, &own_binary))
}

async fn find_out(
    settings: &Settings,
    cache: &Path,
    work: &WorkDir,
    bounds: &Bounds,
) -> Result<(Found, String), Failure> {
    let buildah = find(&settings.buildah).ok_or_else(|| {
        missing(
            format!("Buildah is not there: {}", settings.buildah),
            "Install Buildah (apt-get install buildah), or set NOMAD_BUILD_BUILDAH to its path.",
        )
    })?;
    let own_binary = std::env::current_exe().map_err(|error| missing(error.to_string(), ""))?;
    let init = find("catatonit").ok_or_else(|| {
        missing(
            "catatonit, the init under which tests run, is not there".into(),
            "Install it: apt-get install catatonit.",
        )
    })?;
    for tool in TOOLS {
        if find(tool).is_none() {
            return Err(missing(
                format!("{tool} is not there"),
                "Install the package uidmap.",
            ));
        }
    }
    if settings.network == Network::Egress {
        check_network(settings).map_err(|failure| *failure)?;
    }
    let uid = rustix::process::geteuid().as_raw();
    let key = key(settings, uid, &buildah, &own_binary);
    if let Some(host) = earlier(cache, &key) {
        let tried = false;
        return Ok((Found { host, tried }, key));
    }
    let mut host = Host {
        version: version(&buildah, work, bounds).await?,
        buildah: buildah.display().to_string(),
        home: home().map_err(|error| missing(error.to_string(), ""))?,
        own_binary,
        isolation: Vec::new(),
        refused: Vec::new(),
        init,
    };
    make_image_store(settings, &host, work, bounds).await?;
    for isolation in candidates(settings.isolation) {
        host.isolation = isolation;
        match trial::run(settings, &host, work, bounds).await {
            Ok(()) => {
                let tried = true;
                return Ok((Found { host, tried }, key));
            }
            Err(refusal) => {
                let refused = format!("{}: {refusal}", host.isolation.join(" "));
                host.refused.push(refused);
            }
        }
    }
    Err(missing(
        format!(
            "no sandbox holds on this host: {}",
            host.refused.join(" / ")
        ),
        &needs(settings),
    ))
}

/// What a sandbox needs here.
fn needs(settings: &Settings) -> String {
    format!("{NEEDS}{}", container::lacking(&settings.cache))
}

/// The answer of the last probe that a user's cache holds, wherever and whenever that was.
pub fn kept(cache: &Path) -> Option<Host> {
    read_kept(cache).map(|kept| kept.host)
}

/// The answer to the same question.
fn earlier(cache: &Path, key: &str) -> Option<Host> {
    let kept = read_kept(cache).filter(|kept| kept.answers(key));
    kept.map(|kept| kept.host)
}

/// The file is the user's that builds run as, and may be read by root.
fn read_kept(cache: &Path) -> Option<Kept> {
    let bytes = read_untrusted(&cache.join(KEPT), MOST_KEPT).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn keep(file: &Path, kept: &Kept) {
    let temporary = file.with_extension(format!("{:016x}", fastrand::u64(..)));
    if write_json(&temporary, kept).is_ok() {
        let _ = fs::rename(&temporary, file);
    }
}

/// What a network of its own needs; found out before anything waits for it.
fn check_network(settings: &Settings) -> Result<(), Box<Failure>> {
    for tool in NETWORK_TOOLS {
        if find(tool).is_none() {
            return Err(Box::new(missing(
                format!(
                    "{tool} is not there, without which foreign code has no network of its own"
                ),
                "Install the packages passt and iproute2, or set sandbox.network to none or host.",
            )));
        }
    }
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(TUN)
        .map(drop)
        .map_err(|error| {
            let lacking = container::lacking(&settings.cache);
            Box::new(missing(
                format!("{TUN} cannot be used by the user that builds run as: {error}"),
                &format!("{LOAD_TUN}{lacking}"),
            ))
        })
}

fn missing(message: String, hint: &str) -> Failure {
    let failure = Failure::new(Phase::Source, Kind::SandboxUnavailable, message);
    if hint.is_empty() {
        failure
    } else {
        failure.with_hint(hint)
    }
}

/// The last line of an output that says something.
pub fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    abridged(lines.last().copied().unwrap_or("no output"), 300)
}

/// The path of a program: as given, or in the search path.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return fs::canonicalize(program).ok().filter(|path| path.is_file());
    }
    super::sandbox::PATH
        .split(':')
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.is_file())
}

fn candidates(isolation: Isolation) -> Vec<Vec<String>> {
    let words = |list: &[&str]| list.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
    let rootless = words(&["--isolation", "rootless", "--runtime", RUNTIME]);
    let chroot = words(&["--isolation", "chroot", "--cap-drop", "CAP_SYS_CHROOT"]);
    match isolation {
        Isolation::Auto => vec![rootless, chroot],
        Isolation::Rootless => vec![rootless],
        Isolation::Chroot => vec![chroot],
    }
}

fn key(settings: &Settings, uid: u32, buildah: &Path, own: &Path) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let stamp = |path: &Path| {
        fs::metadata(path).map_or((0, 0), |m| {
            (m.mtime_nsec() + m.mtime() * 1_000_000_000, m.len())
        })
    };
    let others: Vec<_> = [RUNTIME]
        .into_iter()
        .chain(TOOLS)
        .chain(NETWORK_TOOLS)
        .map(|name| find(name).map(|path| stamp(&path)))
        .collect();
    format!(
        "{} {} {:?} {:?} {:?} {:?} {:?} {} {}",
        boot.trim(),
        uid,
        (buildah, stamp(buildah)),
        (own, stamp(own)),
        others,
        settings.isolation,
        settings.network,
        settings.no_new_privileges,
        container::surroundings(),
    )
}

/// Home of this user in the password database; Buildah ≥ 1.39 wants it to exist.
fn home() -> io::Result<PathBuf> {
    let uid = nix::unistd::Uid::effective();
    nix::unistd::User::from_uid(uid)?
        .map(|user| user.dir)
        .ok_or_else(|| {
            io::Error::other(format!(
                "the user {uid} has no entry in the password database"
            ))
        })
}

async fn version(buildah: &Path, work: &WorkDir, bounds: &Bounds) -> Result<String, Failure> {
    let mut command = Command::new(buildah);
    // Even for this Buildah makes directories, in /tmp if nobody names another place.
    command
        .arg("--version")
        .env_clear()
        .envs(environment(&work.outside()));
    let text = match capture(&mut command, &bounds.within(PROBE_TIME), 4096).await {
        Ok((Ended::Exited(0), text)) => text,
        Ok((_, text)) => {
            return Err(missing(
                format!(
                    "{} --version failed: {}",
                    buildah.display(),
                    last_words(&text)
                ),
                "",
            ));
        }
        Err(error) => {
            return Err(missing(
                format!("{} cannot be started: {error}", buildah.display()),
                "Its path must be executable for the user that builds run as.",
            ));
        }
    };
    // "buildah version 1.28.2 (image-spec …)"
    text.split_whitespace()
        .nth(2)
        .filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
        .ok_or_else(|| {
            missing(
                format!("{} does not tell its version", buildah.display()),
                "",
            )
        })
}

/// Buildah refuses an additional store that is not there or was never used.
pub(super) async fn make_image_store(
    settings: &Settings,
    host: &Host,
    work: &WorkDir,
    bounds: &Bounds,
) -> Result<(), Failure> {
    let store = host.cache(&settings.cache).images();
    let mut command = Command::new(&host.buildah);
    command
        .args(storage(&store, &work.boxed("r")))
        .args(["images", "--quiet"])
        .env_clear()
        .envs(environment(&work.outside()));
    match capture(&mut command, &bounds.within(PROBE_TIME), 64 * 1024).await {
        Ok((Ended::Exited(0), _)) => Ok(()),
        Ok((_, text)) => Err(missing(
            format!(
                "the store of base images {} cannot be made: {}",
                store.display(),
                last_words(&text)
            ),
            &needs(settings),
        )),
        Err(error) => Err(missing(error.to_string(), &needs(settings))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::settings::Limits;

    fn settings(cache: &Path) -> Settings {
        Settings {
            // Any program that is there.
            buildah: "/bin/sh".into(),
            cache: cache.into(),
            insecure: Vec::new(),
            ca_file: None,
            git_allow_http: false,
            isolation: Isolation::Auto,
            network: Network::Egress,
            closed: Vec::new(),
            no_new_privileges: true,
            limits: Limits::default(),
            environment: Vec::new(),
        }
    }

    #[test]
    fn only_the_answer_to_the_very_same_question_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let asked = settings(dir.path());
        let own_binary = std::env::current_exe().unwrap();
        let buildah = find("/bin/sh").unwrap();
        let host = Host {
            buildah: "/bin/sh".into(),
            version: "1.28.2".into(),
            home: "/".into(),
            own_binary: own_binary.clone(),
            isolation: vec!["--isolation".into(), "chroot".into()],
            refused: Vec::new(),
            init: "/init".into(),
        };
        assert_eq!(known(&asked, 7), None, "nobody has tried");
        let key = key(&asked, 7, &buildah, &own_binary);
        let file = dir.path().join(KEPT);
        let keep_as = |key: &str| {
            let kept = Kept {
                key: key.into(),
                host: host.clone(),
                at: 0,
            };
            keep(&file, &kept);
        };
        keep_as(&key);
        assert_eq!(known(&asked, 7), Some(host.clone()));
        assert_eq!(known(&asked, 8), None, "another user");
        let mut other = asked.clone();
        other.network = Network::Host;
        assert_eq!(known(&other, 7), None, "another network");
        let mut other = asked.clone();
        other.isolation = Isolation::Rootless;
        assert_eq!(known(&other, 7), None, "another isolation");
        let mut other = asked.clone();
        other.buildah = "/bin/cat".into();
        assert_eq!(known(&other, 7), None, "another Buildah");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        keep_as(&key.replace(boot.trim(), "another-boot"));
        assert_eq!(known(&asked, 7), None, "another boot");
        assert!(kept(dir.path()).is_some());
        fs::write(&file, "{").unwrap();
        assert_eq!((known(&asked, 7), kept(dir.path())), (None, None));
    }

    #[test]
    fn that_a_stronger_isolation_does_not_work_is_believed_for_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let asked = settings(dir.path());
        let own_binary = std::env::current_exe().unwrap();
        let key = key(&asked, 7, &find("/bin/sh").unwrap(), &own_binary);
        let mut host = Host {
            buildah: "/bin/sh".into(),
            version: "1.28.2".into(),
            home: "/".into(),
            own_binary,
            isolation: vec!["--isolation".into(), "chroot".into()],
            refused: vec!["--isolation rootless: no runc".into()],
            init: "/init".into(),
        };
        let keep_for = |seconds: i64, host: &Host| {
            let kept = Kept {
                key: key.clone(),
                host: host.clone(),
                at: now_seconds() - seconds,
            };
            keep(&dir.path().join(KEPT), &kept);
        };
        keep_for(WEAKER - 60, &host);
        assert_eq!(known(&asked, 7), Some(host.clone()));
        keep_for(WEAKER + 60, &host);
        assert_eq!(known(&asked, 7), None);
        host.refused.clear();
        keep_for(WEAKER + 60, &host);
        assert_eq!(known(&asked, 7), Some(host), "the strongest there is");
    }
}
