//! What this host can do: which Buildah, which isolation survives a real tiny build.
//!
//! The answer is kept per boot, user, Buildah and settings: a probe costs about a second.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::build::{Failure, Kind, Phase};

use super::process::{Bounds, Ended, capture};
use super::sandbox::{Reach, Sandbox, environment, remove_tree, storage};
use super::settings::{Isolation, Settings};
use super::workdir::{WorkDir, read_json, write_json};

const PROBE_TIME: Duration = Duration::from_secs(60);

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
    /// A static init for tests.
    pub init: PathBuf,
}

impl Host {
    /// Where base images are kept: versions of Buildah must not share a store.
    pub fn images(&self, cache: &Path) -> PathBuf {
        cache.join(format!("images-{}", self.version))
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    host: Host,
}

/// Finds out what this host can do, or takes the answer of an earlier probe.
///
/// # Errors
/// A failure with fault `operator` that says what is missing.
pub async fn probe(settings: &Settings, work: &WorkDir, bounds: &Bounds) -> Result<Host, Failure> {
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
    for tool in ["newuidmap", "newgidmap", "setpriv", "unshare"] {
        if find(tool).is_none() {
            return Err(missing(
                format!("{tool} is not there"),
                "Install the packages uidmap and util-linux.",
            ));
        }
    }
    let key = key(settings, &buildah, &own_binary);
    let file = settings.cache.join("probe.json");
    if let Ok(kept) = read_json::<Kept>(&file)
        && kept.key == key
    {
        return Ok(kept.host);
    }
    let mut host = Host {
        version: version(&buildah, bounds).await?,
        buildah: buildah.display().to_string(),
        home: home().map_err(|error| missing(error.to_string(), ""))?,
        own_binary,
        isolation: Vec::new(),
        init,
    };
    make_image_store(settings, &host, work, bounds).await?;
    let mut said = Vec::new();
    for isolation in candidates(settings.isolation) {
        host.isolation = isolation;
        match attempt(settings, &host, work, bounds).await {
            Ok((Ended::Exited(0), _)) => {
                let temporary = settings
                    .cache
                    .join(format!("probe.json.{}", std::process::id()));
                if write_json(
                    &temporary,
                    &Kept {
                        key,
                        host: host.clone(),
                    },
                )
                .is_ok()
                {
                    let _ = fs::rename(&temporary, &file);
                }
                return Ok(host);
            }
            Ok((_, text)) => said.push(last_words(&text)),
            Err(error) => said.push(error.to_string()),
        }
    }
    Err(missing(
        format!("no sandbox works on this host: {}", said.join(" / ")),
        NEEDS,
    ))
}

fn missing(message: String, hint: &str) -> Failure {
    let failure = Failure::new(Phase::Source, Kind::SandboxUnavailable, message);
    if hint.is_empty() {
        failure
    } else {
        failure.with_hint(hint)
    }
}

fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    crate::build::clean::short(lines.last().copied().unwrap_or("no output"), 300)
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
    let rootless = words(&["--isolation", "rootless", "--runtime", "runc"]);
    let chroot = words(&["--isolation", "chroot", "--cap-drop", "CAP_SYS_CHROOT"]);
    match isolation {
        Isolation::Auto => vec![rootless, chroot],
        Isolation::Rootless => vec![rootless],
        Isolation::Chroot => vec![chroot],
    }
}

fn key(settings: &Settings, buildah: &Path, own: &Path) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let stamp = |path: &Path| {
        fs::metadata(path).map_or((0, 0), |m| {
            (m.mtime_nsec() + m.mtime() * 1_000_000_000, m.len())
        })
    };
    format!(
        "{} {} {:?} {:?} {:?} {:?}",
        boot.trim(),
        rustix::process::geteuid().as_raw(),
        (buildah, stamp(buildah)),
        (own, stamp(own)),
        settings.isolation,
        settings.network,
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

async fn version(buildah: &Path, bounds: &Bounds) -> Result<String, Failure> {
    let mut command = Command::new(buildah);
    command
        .arg("--version")
        .env_clear()
        .env("PATH", super::sandbox::PATH);
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
async fn make_image_store(
    settings: &Settings,
    host: &Host,
    work: &WorkDir,
    bounds: &Bounds,
) -> Result<(), Failure> {
    let store = host.images(&settings.cache);
    let mut command = Command::new(&host.buildah);
    command
        .args(storage(&store, &work.boxed("r")))
        .args(["images", "--quiet"])
        .env_clear()
        .envs(environment(&work.boxed("")));
    match capture(&mut command, &bounds.within(PROBE_TIME), 64 * 1024).await {
        Ok((Ended::Exited(0), _)) => Ok(()),
        Ok((_, text)) => Err(missing(
            format!(
                "the store of base images {} cannot be made: {}",
                store.display(),
                last_words(&text)
            ),
            NEEDS,
        )),
        Err(error) => Err(missing(error.to_string(), NEEDS)),
    }
}

/// A real tiny build in the real sandbox.
async fn attempt(
    settings: &Settings,
    host: &Host,
    work: &WorkDir,
    bounds: &Bounds,
) -> io::Result<(Ended, String)> {
    let place = WorkDir::new(work.root().join("probe"));
    place.prepare()?;
    fs::copy(&host.init, place.src().join("init"))?;
    fs::write(
        place.src().join("Containerfile"),
        "FROM scratch\nCOPY init /init\nRUN [\"/init\", \"--version\"]\n",
    )?;
    let sandbox = Sandbox {
        settings,
        host,
        work: &place,
    };
    let mut argv = sandbox.buildah();
    argv.push("build".into());
    argv.extend(sandbox.isolation());
    argv.extend(["--pull=never".into(), place.src().display().to_string()]);
    let mut command = sandbox.command(
        "probe",
        vec![argv],
        Reach {
            sources: true,
            secrets: false,
        },
    )?;
    let answer = capture(&mut command, &bounds.within(PROBE_TIME), 64 * 1024).await?;
    let mut remove = Command::from(remove_tree(Path::new(&host.buildah), place.root()));
    capture(&mut remove, &bounds.within(PROBE_TIME), 4096).await?;
    Ok(answer)
}
