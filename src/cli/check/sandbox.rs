//! The sandbox, tried as the first build would try it: by the same probe, as the user that builds run as, below
//! the state directory. An earlier probe's answer counts where it is one to the very same question. Leaves
//! nothing behind.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::local::accounts::Account;
use crate::backend::local::layout::Layout;
use crate::backend::local::program::Program;
use crate::backend::local::reap::remove_files;
use crate::backend::local::user::{BuildUser, ENDING, Lacking, Lease, Users, Wanted};
use crate::backend::local::workshop;
use crate::build::{Failure, clean};
use crate::cli::block_on;
use crate::config::{Config, Network, Profile};
use crate::runner::entry::stop_signal;
use crate::runner::probe::{self, Found, Host, last_words};
use crate::runner::process::{Bounds, Ended, capture};
use crate::runner::sandbox::{PATH, environment};
use crate::runner::workdir::{read_untrusted, write_json};

/// How long a trial may take; where nothing is in its way it takes a few seconds.
const TIME: Duration = Duration::from_secs(60);
/// How much longer its process may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// What the names of directories of trials begin with.
const PREFIX: &str = "check-";
/// Bytes of an answer.
const MOST: u64 = 64 << 10;
/// What mends a Buildah that does not work at all.
const ANOTHER: &str =
    "apt-get install --reinstall buildah, or set NOMAD_BUILD_BUILDAH to the path of another";

/// A sandbox of some profiles: the probe tries it with the network that they have.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The profiles.
    pub profiles: Vec<String>,
    /// Their network.
    pub network: Network,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A sandbox holds.
    Holds {
        /// How Buildah isolates in it.
        isolation: Vec<String>,
        /// What is stronger and was not taken, with why.
        refused: Vec<String>,
        /// As whom it was tried.
        user: String,
        /// Whether it was tried just now; else by an earlier build of this boot.
        now: bool,
    },
    /// Builds are refused, and what mends it.
    Refused(String, String),
    /// Nobody tried it.
    Untried(String),
}

/// Tries the sandbox of each network that profiles have; `accounts` are those that builds run as where this is
/// root. From then on this process is not ended by SIGINT and SIGTERM.
///
/// # Errors
/// When it was told to stop.
pub fn look(config: &Config, accounts: &[Account]) -> io::Result<Vec<Trial>> {
    let tried = one_of_each(config);
    let outcomes = outcomes(config, accounts, &tried)?;
    Ok(trials(config, outcomes))
}

/// The same where nobody can try.
pub fn untried(config: &Config, why: &str) -> Vec<Trial> {
    trials(
        config,
        one_of_each(config)
            .iter()
            .map(|_| Outcome::Untried(why.into()))
            .collect(),
    )
}

/// A profile of each network, `default` first.
fn one_of_each(config: &Config) -> Vec<Profile> {
    let mut found: Vec<Profile> = Vec::new();
    for profile in config.profiles() {
        if !found.iter().any(|one| one.network == profile.network) {
            found.push(profile);
        }
    }
    found
}

fn trials(config: &Config, outcomes: Vec<Outcome>) -> Vec<Trial> {
    let profiles = config.profiles();
    let tried = one_of_each(config).into_iter().zip(outcomes);
    let trial = |(one, outcome): (Profile, Outcome)| Trial {
        profiles: (profiles.iter())
            .filter(|profile| profile.network == one.network)
            .map(|profile| profile.name.clone())
            .collect(),
        network: one.network,
        outcome,
    };
    tried.map(trial).collect()
}

/// An outcome for each of the profiles.
fn outcomes(
    config: &Config,
    accounts: &[Account],
    profiles: &[Profile],
) -> io::Result<Vec<Outcome>> {
    let all = |outcome: Outcome| Ok(vec![outcome; profiles.len()]);
    let Ok(users) = Users::open(config) else {
        let why = "builds have no account to run as, see above";
        return all(Outcome::Untried(why.into()));
    };
    let layout = Layout::new(&config.state_dir);
    let known = |profile: &Profile, account: &Account| {
        let user = BuildUser::of(account);
        let settings = workshop::settings(config, profile, &layout, &user);
        probe::known(&settings, account.uid)
    };
    let knows_all = |account: &&Account| {
        let mut profiles = profiles.iter();
        profiles.all(|profile| known(profile, account).is_some())
    };
    let knowing = accounts.iter().filter(knows_all);
    let knowing = Wanted::waiting_for(knowing.map(|account| account.name.clone()));
    let lease = match take(knowing, ENDING, |wanted| users.take(wanted, 0)) {
        Ok(Some(lease)) => lease,
        Ok(None) => {
            let told = |profile: &Profile| {
                let mut accounts = accounts.iter();
                let found =
                    accounts.find_map(|one| Some(holds(known(profile, one)?, &one.name, false)));
                let busy = || Outcome::Untried("a build runs as each of the accounts".into());
                found.unwrap_or_else(busy)
            };
            return Ok(profiles.iter().map(told).collect());
        }
        Err(error) => return all(refused(&error)),
    };
    let place = Scratch::make(&layout).and_then(|scratch| {
        users.check_way(&scratch.dir)?;
        Ok(scratch)
    });
    let scratch = match place {
        Ok(scratch) => scratch,
        Err(error) => return all(refused(&error)),
    };
    let mut outcomes = Vec::new();
    for (number, profile) in profiles.iter().enumerate() {
        let dir = scratch.dir.join(number.to_string());
        outcomes.push(match attempt(config, profile, &layout, &lease, &dir) {
            Ok(Ok(found)) => {
                let account = accounts.iter().any(|one| one.name == lease.user.name);
                let user = if account {
                    &lease.user.name
                } else {
                    "this user"
                };
                holds(found.host, user, found.tried)
            }
            Ok(Err(failure)) => {
                let mend = failure.hint.unwrap_or_else(|| ANOTHER.into());
                Outcome::Refused(failure.message, mend)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => refused(&error),
        });
    }
    Ok(outcomes)
}

fn holds(host: Host, user: &str, now: bool) -> Outcome {
    Outcome::Holds {
        // They come from a file of the account's.
        isolation: (host.isolation.iter())
            .map(|word| clean::line(word))
            .collect(),
        refused: (host.refused.iter())
            .map(|text| clean::abridged(text, 500))
            .collect(),
        user: user.to_owned(),
        now,
    }
}

fn refused(error: &io::Error) -> Outcome {
    // The way to the directory says itself what mends it.
    let said = error.to_string();
    match said.split_once("; ") {
        Some((wrong, mend)) => Outcome::Refused(wrong.into(), mend.into()),
        None => Outcome::Refused(
            said,
            "make the state directory (state_dir) one that builds can use".into(),
        ),
    }
}

/// Asks again for as long as builds hold every account, or one that is wanted is being tidied up; in the end
/// any does, if there is one.
fn take<T>(
    mut wanted: Wanted,
    time: Duration,
    mut ask: impl FnMut(&Wanted) -> io::Result<Result<T, Lacking>>,
) -> io::Result<Option<T>> {
    let until = Instant::now() + time;
    loop {
        let taken = ask(&wanted)?.ok();
        if taken.is_some() || !wanted.is_patient {
            return Ok(taken);
        }
        std::thread::sleep(Duration::from_millis(100));
        wanted.is_patient = Instant::now() < until;
    }
}

/// The probe of one profile in a directory of its own.
fn attempt(
    config: &Config,
    profile: &Profile,
    layout: &Layout,
    lease: &Lease,
    dir: &Path,
) -> io::Result<Result<Found, Failure>> {
    let user = &lease.user;
    let kept = layout.cache(&user.name);
    let mut settings = workshop::settings(config, profile, layout, user);
    settings.cache = dir.join("cache");
    DirBuilder::new().mode(0o700).create(dir)?;
    let file = dir.join("settings.json");
    write_json(&file, &settings)?;
    user.give(&file)?;
    user.give(dir)?;
    let answer = dir.join("answer.json");
    let program = Program::for_user(&std::env::current_exe()?, user)?;
    let mut command = std::process::Command::new(&program.path);
    command
        .args(["runner", "probe", "--settings"])
        .arg(&file)
        .arg("--work")
        .arg(dir)
        .arg("--kept")
        .arg(kept)
        .args(["--seconds", &TIME.as_secs().to_string()])
        .arg("--answer")
        .arg(&answer)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/");
    user.apply(&mut command);
    let ran = block_on(async { run(command, stop_signal()?, TIME + GRACE).await })?;
    lease.clear()?;
    let (ended, said) = ran?;
    if ended == Ended::Cancelled {
        return Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "it was told to stop",
        ));
    }
    match read_untrusted(&answer, MOST) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        Err(_) => Err(io::Error::other(format!(
            "the probe has said nothing: {}",
            last_words(&said)
        ))),
    }
}

async fn run(
    command: std::process::Command,
    cancel: CancellationToken,
    time: Duration,
) -> io::Result<(Ended, String)> {
    let bounds = Bounds {
        cancel,
        deadline: Instant::now() + time,
    };
    capture(&mut Command::from(command), &bounds, MOST).await
}

/// A directory below the state directory. Whatever was made for it goes with it.
struct Scratch {
    dir: PathBuf,
    /// Directories above it that were not there, the innermost first.
    made: Vec<PathBuf>,
    _held: File,
}

impl Scratch {
    fn make(layout: &Layout) -> io::Result<Self> {
        let root = layout.root();
        let missing = root.ancestors().take_while(|dir| !dir.exists());
        let made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        let dir = root.join(format!("{PREFIX}{:016x}", fastrand::u64(..)));
        Self::fill(root, &dir, &made)
            .inspect_err(|_| remove_empty(&made))
            .map(|held| Self {
                dir,
                made: made.clone(),
                _held: held,
            })
            .map_err(|error| {
                let text = format!("{} cannot be used: {error}", root.display());
                io::Error::new(error.kind(), text)
            })
    }

    /// Makes the directories, and holds the last one.
    fn fill(root: &Path, dir: &Path, made: &[PathBuf]) -> io::Result<File> {
        // As the server makes them, whatever the umask: builds pass through.
        let make = |dir: &Path| {
            fs::create_dir(dir)?;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o711))
        };
        made.iter().rev().try_for_each(|dir| make(dir))?;
        // While one is made, nobody else takes it for one that was left.
        let guard = File::open(root)?;
        guard.lock()?;
        sweep(root);
        make(dir)?;
        let held = File::open(dir)?;
        held.lock()?;
        Ok(held)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "it cannot be removed");
        }
        remove_empty(&self.made);
    }
}

/// Also what subordinate users have written.
fn remove(dir: &Path) -> io::Result<()> {
    remove_files(&std::env::current_exe()?, dir)
}

fn remove_empty(dirs: &[PathBuf]) {
    for dir in dirs {
        let _ = fs::remove_dir(dir);
    }
}

/// Removes what was left by one that was killed.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let is_ones = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let free = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if is_ones && free() {
            let _ = remove(&entry.path());
        }
    }
}

/// What Buildah says its version is, or what it says instead. Even for this it makes directories.
pub fn version_of(buildah: &Path) -> String {
    const TIME: Duration = Duration::from_secs(10);
    let said = tempfile::tempdir().and_then(|dir| {
        let mut command = std::process::Command::new(buildah);
        let scratch = environment(dir.path());
        for (_, place) in scratch
            .iter()
            .filter(|(_, value)| Path::new(value).starts_with(dir.path()))
        {
            fs::create_dir_all(place)?;
        }
        command.arg("--version").env_clear().envs(scratch);
        block_on(run(command, CancellationToken::new(), TIME))?
    });
    match said {
        Ok((Ended::OutOfTime, _)) => format!("no answer within {} seconds", TIME.as_secs()),
        Ok((_, text)) => text.trim().to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_for_a_trial_leaves_nothing_and_takes_what_others_left() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("a/b"));
        let scratch = Scratch::make(&layout).unwrap();
        fs::create_dir(scratch.dir.join("0")).unwrap();
        let other = Scratch::make(&layout).unwrap();
        assert!(scratch.dir.exists(), "one that is held stays");
        drop(other);
        drop(scratch);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let left = layout.root().join("check-0123456789abcdef");
        fs::create_dir_all(left.join("x")).unwrap();
        fs::create_dir(layout.root().join("b")).unwrap();
        drop(Scratch::make(&layout).unwrap());
        assert!(!left.exists() && layout.root().join("b").exists());
        // A file where the state directory should be.
        fs::write(dir.path().join("file"), "").unwrap();
        let error = Scratch::make(&Layout::new(dir.path().join("file/x")));
        assert!(
            error
                .err()
                .unwrap()
                .to_string()
                .contains("cannot be used: ")
        );
    }

    #[test]
    fn who_knows_the_answer_is_waited_for_and_then_anybody_does() {
        let knowing = || Wanted::waiting_for(["x-0".to_owned()]);
        let mut tries = 0;
        let tidied_up = take(knowing(), ENDING, |wanted| {
            tries += 1;
            assert!(wanted.is_patient);
            Ok(if tries < 3 {
                Err(Lacking::Better)
            } else {
                Ok("x-0")
            })
        });
        assert_eq!((tidied_up.unwrap(), tries), (Some("x-0"), 3));

        let too_long = take(knowing(), Duration::ZERO, |wanted| {
            Ok(if wanted.is_patient {
                Err(Lacking::Better)
            } else {
                Ok("x-1")
            })
        });
        assert_eq!(too_long.unwrap(), Some("x-1"));
        let all_run_on = take(knowing(), Duration::ZERO, |_| {
            Ok(Err::<&str, _>(Lacking::All))
        });
        assert_eq!(all_run_on.unwrap(), None);
    }

    #[test]
    fn a_refusal_says_what_mends_it() {
        let error = |text: &str| refused(&io::Error::other(text.to_owned()));
        let way = error("b-0 cannot pass through /root; chmod o+x it");
        let parts = ("b-0 cannot pass through /root", "chmod o+x it");
        assert_eq!(way, Outcome::Refused(parts.0.into(), parts.1.into()));
        assert!(
            matches!(error("x"), Outcome::Refused(wrong, mend) if wrong == "x" && mend.contains("state_dir"))
        );
    }
}
