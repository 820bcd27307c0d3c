//! `nomad-build setup`: accounts that builds run as, each with subordinate ids of its own.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::backend::local::accounts::{self, Account, Ids};
use crate::backend::local::store::lock;
use crate::backend::local::user::{Users, is_other};
use crate::config::{self, Config, Given};
use crate::runner::subid::{Owner, SUBGID, SUBUID, first_free};

/// Fewest accounts, however few builds run at the same time.
const FEWEST: u32 = 4;
const NO_ROOM: &str = "no range of 65536 ids is free in /etc/subuid and /etc/subgid";
/// Two of these at once would give out the same ids.
const LOCK: &str = "/run/nomad-build/setup.lock";

/// Make the accounts that builds run as when the server is root.
#[derive(Debug, Args)]
pub struct Setup {
    /// How many accounts; none is ever removed. Default: local.slots, at least 4.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(accounts::MOST)))]
    users: Option<u32>,
    /// Beginning of their names. Default: sandbox.user of the configuration.
    #[arg(long)]
    prefix: Option<String>,
    /// Only print the commands.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    given: Given,
}

/// A command line.
type Argv = Vec<String>;

/// An account as it should be, and as it is.
struct Wanted {
    name: String,
    is: Option<Account>,
    has_home: bool,
}

impl Setup {
    /// Makes what is missing; the status is 1 when an ordinary user must ask root for something.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut config = Config::load(&self.given)?;
        if let Some(prefix) = &self.prefix {
            ensure!(
                config::is_account(prefix),
                "--prefix {prefix:?}: {}",
                config::ACCOUNT_RULE
            );
            config.sandbox.user.clone_from(prefix);
        }
        if is_other() {
            self.make(&config)
        } else {
            ensure!(
                self.users.is_none() && self.prefix.is_none(),
                "accounts are made by root: sudo nomad-build setup"
            );
            advise()
        }
    }

    fn make(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let _lock = (!self.dry_run)
            .then(|| exclusive(Path::new(LOCK)))
            .transpose()?;
        let prefix = &config.sandbox.user;
        let ids = Ids::read()?;
        let there = u32::try_from(accounts::pool(prefix, &ids)?.len())?;
        let default = config.local.slots.max(FEWEST);
        let count = self.users.unwrap_or(default).max(there);
        let wanted = (0..count)
            .map(|index| look(accounts::name(prefix, index), &ids))
            .collect::<io::Result<Vec<_>>>()?;
        // usermod(8) makes no file.
        let files = [SUBUID, SUBGID].into_iter();
        let files = files.filter(|file| !Path::new(file).exists());
        let mut steps: Vec<Argv> = files
            .map(|file| words(&format!("install -m 0644 /dev/null {file}")))
            .collect();
        steps.extend(plan(&wanted, ids).context(NO_ROOM)?);
        let mut out = io::stdout();
        for argv in &steps {
            writeln!(out, "{}", argv.join(" "))?;
            if !self.dry_run {
                execute(argv)?;
            }
        }
        if !self.dry_run {
            Users::open(config)?;
        }
        if !self.dry_run || steps.is_empty() {
            let last = accounts::name(prefix, count - 1);
            let first = accounts::name(prefix, 0);
            writeln!(
                out,
                "{count} accounts for builds, {first} to {last}: all there"
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// An ordinary user runs builds as itself and needs nothing but subordinate ids.
fn advise() -> anyhow::Result<ExitCode> {
    let uid = nix::unistd::Uid::effective();
    let user = nix::unistd::User::from_uid(uid)?
        .with_context(|| format!("the user {uid} has no entry in the password database"))?;
    let mut ids = Ids::read()?;
    let owner = Owner {
        name: &user.name,
        uid: Some(uid.as_raw()),
    };
    let mut out = io::stdout();
    if let Some(argv) = give(owner, &mut ids).context(NO_ROOM)? {
        writeln!(
            out,
            "builds run as {}, which lacks subordinate ids; give it some:",
            user.name
        )?;
        writeln!(out, "sudo {}", argv.join(" "))?;
        return Ok(ExitCode::FAILURE);
    }
    writeln!(out, "builds run as {}: all there", user.name)?;
    Ok(ExitCode::SUCCESS)
}

fn exclusive(path: &Path) -> io::Result<fs::File> {
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    lock(path)
}

fn look(name: String, ids: &Ids) -> io::Result<Wanted> {
    let is = accounts::find(&name, ids)?;
    let has_home = is.as_ref().is_some_and(|account| {
        // One that somebody else made may have its home anywhere, or none.
        account.home != accounts::home(&name)
            || fs::metadata(&account.home).is_ok_and(|metadata| {
                metadata.uid() == account.uid && metadata.mode() & 0o777 == 0o750
            })
    });
    Ok(Wanted { name, is, has_home })
}

/// The commands that make what is missing; none when there is no room for more ids.
fn plan(wanted: &[Wanted], mut ids: Ids) -> Option<Vec<Argv>> {
    let mut steps = Vec::new();
    for one in wanted {
        let (name, home) = (&one.name, accounts::home(&one.name).display().to_string());
        if one.is.is_none() {
            let mut argv = words("useradd --system --user-group --no-create-home --home-dir");
            argv.extend([home.clone()]);
            argv.extend(words("--shell /usr/sbin/nologin --comment"));
            argv.extend(["builds".into(), name.clone()]);
            steps.push(argv);
        }
        if !one.has_home {
            let group = (one.is.as_ref()).map_or(name.clone(), |account| account.gid.to_string());
            // The directory above it: everybody may pass through.
            if let Some(above) = Path::new(&home).parent() {
                let mut argv = words("install -d -m 0711");
                argv.push(above.display().to_string());
                if !steps.contains(&argv) {
                    steps.push(argv);
                }
            }
            let mut argv = words("install -d -m 0750 -o");
            argv.extend([name.clone(), "-g".into(), group, home]);
            steps.push(argv);
        }
        let owner = Owner {
            name,
            uid: one.is.as_ref().map(|account| account.uid),
        };
        steps.extend(take(owner, &mut ids));
        steps.extend(give(owner, &mut ids)?);
    }
    Some(steps)
}

/// Takes the ranges from an account that somebody else has, too.
fn take(owner: Owner<'_>, ids: &mut Ids) -> Vec<Argv> {
    let mut steps = Vec::new();
    for (table, option) in [
        (&mut ids.uids, "--del-subuids"),
        (&mut ids.gids, "--del-subgids"),
    ] {
        for (range, _) in table.shared(owner) {
            table.remove(owner, range);
            steps.push(words(&format!("usermod {option} {range} {}", owner.name)));
        }
    }
    steps
}

/// Gives a user the ranges it lacks, the same ids as users and groups; none when there is no room.
fn give(owner: Owner<'_>, ids: &mut Ids) -> Option<Option<Argv>> {
    let range = first_free(&[&ids.uids, &ids.gids]);
    let mut argv = words("usermod");
    for (table, option) in [
        (&mut ids.uids, "--add-subuids"),
        (&mut ids.gids, "--add-subgids"),
    ] {
        if table.lack(owner).is_some() {
            table.add(owner.name, range?);
            argv.extend([option.into(), range?.to_string()]);
        }
    }
    argv.push(owner.name.to_owned());
    Some((argv.len() > 2).then_some(argv))
}

fn words(text: &str) -> Argv {
    text.split(' ').map(str::to_owned).collect()
}

fn execute(argv: &[String]) -> anyhow::Result<()> {
    let Some((program, args)) = argv.split_first() else {
        return Ok(());
    };
    let status = Command::new(program)
        .args(args)
        .env("PATH", crate::runner::sandbox::PATH)
        .status()
        .with_context(|| format!("{program} cannot be started (it is in the package passwd)"))?;
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::subid::Table;

    fn ids(subuid: &str, subgid: &str) -> Ids {
        Ids {
            uids: Table::parse("/etc/subuid", subuid, "root:x:0:0::/root:/bin/sh\n"),
            gids: Table::parse("/etc/subgid", subgid, "root:x:0:\n"),
        }
    }

    fn missing(name: &str) -> Wanted {
        Wanted {
            name: name.into(),
            is: None,
            has_home: false,
        }
    }

    fn there(name: &str, uid: u32, has_home: bool) -> Wanted {
        let is = Some(Account {
            name: name.into(),
            uid,
            gid: uid + 1,
            home: accounts::home(name),
            subuids: Vec::new(),
        });
        Wanted {
            is,
            has_home,
            ..missing(name)
        }
    }

    fn steps(wanted: &[Wanted], ids: Ids) -> Vec<String> {
        let steps = plan(wanted, ids).unwrap();
        steps.iter().map(|argv| argv.join(" ")).collect()
    }

    #[test]
    fn new_accounts_get_homes_and_ranges_of_their_own() {
        let home = "/var/lib/nomad-build-users";
        let useradd = "useradd --system --user-group --no-create-home --home-dir";
        let rest = "--shell /usr/sbin/nologin --comment builds";
        let found = steps(
            &[missing("b-0"), missing("b-1")],
            ids("alice:100000:65536\n", "alice:165536:65536\n"),
        );
        assert_eq!(
            found,
            [
                format!("{useradd} {home}/b-0 {rest} b-0"),
                format!("install -d -m 0711 {home}"),
                format!("install -d -m 0750 -o b-0 -g b-0 {home}/b-0"),
                "usermod --add-subuids 231072-296607 --add-subgids 231072-296607 b-0".into(),
                format!("{useradd} {home}/b-1 {rest} b-1"),
                format!("install -d -m 0750 -o b-1 -g b-1 {home}/b-1"),
                "usermod --add-subuids 296608-362143 --add-subgids 296608-362143 b-1".into(),
            ]
        );
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let text = "b-0:100000:65536\n991:165536:65536\n";
        let wanted = [there("b-0", 990, true), there("b-1", 991, true)];
        assert_eq!(steps(&wanted, ids(text, text)), [""; 0]);
    }

    #[test]
    fn only_what_is_missing_is_made() {
        let found = steps(
            &[there("b-0", 990, false), there("b-1", 992, true)],
            ids("b-0:100000:65536\nb-1:165536:9\n", "b-1:165536:65536\n"),
        );
        assert_eq!(
            found,
            [
                "install -d -m 0711 /var/lib/nomad-build-users",
                "install -d -m 0750 -o b-0 -g 991 /var/lib/nomad-build-users/b-0",
                "usermod --add-subgids 231072-296607 b-0",
                "usermod --add-subuids 296608-362143 b-1",
            ]
        );
    }

    #[test]
    fn a_range_that_somebody_else_has_is_changed_for_another() {
        let text = "b-0:100000:65536\nb-1:100000:65536\n";
        let found = steps(
            &[there("b-0", 990, true), there("b-1", 992, true)],
            ids(text, "b-0:100000:65536\nb-1:300000:65536\n"),
        );
        assert_eq!(
            found,
            [
                "usermod --del-subuids 100000-165535 b-0",
                "usermod --add-subuids 165536-231071 b-0",
            ]
        );
    }

    #[test]
    fn no_room_is_a_fault() {
        let text = "alice:100000:4000000000\n";
        assert!(plan(&[missing("b-0")], ids(text, "")).is_none());
    }
}
