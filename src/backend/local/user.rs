//! Who builds run as: this user, or, when this is root, an account that no other build on this
//! machine has at the same time.
//!
//! An account is held by a lock below `/run`, the same for every server of this machine, however
//! many state directories they have; it is free the moment the job dies.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::config::Config;

use super::accounts::{self, Account, Ids};
use super::evict::evict;
use super::store::{lock, try_lock};

/// How long a build waits at most for an account whose build has ended; to tidy up may take longer.
pub const ENDING: Duration = Duration::from_secs(10);

/// Locks of the accounts; for root alone.
const LOCKS: &str = "/run/nomad-build/users";

/// Whether builds run as another user than this process: root can remove whatever they leave.
pub fn is_other() -> bool {
    rustix::process::geteuid().is_root()
}

/// The users that builds may run as.
#[derive(Debug, Clone)]
pub struct Users {
    /// None: every build runs as this process's own user.
    pool: Option<Pool>,
}

#[derive(Debug, Clone)]
struct Pool {
    accounts: Vec<Account>,
    locks: PathBuf,
}

/// A user that no other build has as long as this lives; an ordinary user shares itself.
#[derive(Debug)]
pub struct Lease {
    /// The user.
    pub user: BuildUser,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    account: Account,
    /// Is closed on exec, and so ends with this process.
    _lock: File,
    /// Is there when its build has ended.
    ending: PathBuf,
}

/// What a user has that a build can use, most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warmth {
    /// Layers of its own scope.
    Own,
    /// Those of the scope that it reads.
    Shared,
    /// Nothing, or nobody knows.
    Nothing,
}

/// Which users somebody would rather have than others.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Their names, the first first.
    pub names: Vec<(Warmth, String)>,
    /// Whether to wait for one that has more than those that are free, and will be free in a moment.
    pub is_patient: bool,
}

/// Why there is no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// All are taken, or wanted by others.
    All,
    /// A better one than those that are free will be free in a moment.
    Better,
}

impl Wanted {
    /// Rather these than others, whatever they have.
    pub fn rather(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            names: names
                .into_iter()
                .map(|name| (Warmth::Nothing, name))
                .collect(),
            is_patient: false,
        }
    }

    /// Rather these than others, and no other while one of these will be free in a moment.
    pub fn waiting_for(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            names: names.into_iter().map(|name| (Warmth::Own, name)).collect(),
            is_patient: true,
        }
    }
}

impl Lease {
    /// Kills whatever runs as this user, and waits until it is gone; nothing for an ordinary user,
    /// whose processes are not only builds. Blocks for a few seconds at most.
    ///
    /// # Errors
    /// When something does not end.
    pub fn clear(&self) -> io::Result<()> {
        match &self.held {
            Some(held) => evict(|uid| held.account.has_uid(uid)),
            None => Ok(()),
        }
    }

    /// Says that its build has ended, and that it will be free in a moment.
    pub fn ends(&self) {
        if let Some(held) = &self.held {
            let _ = fs::write(&held.ending, b"");
        }
    }
}

impl Users {
    /// The users for this process: itself, or, for root, the accounts with the configured prefix.
    ///
    /// # Errors
    /// When this is root and there are no such accounts, or they share ids with anybody; names
    /// every fault.
    pub fn open(config: &Config) -> io::Result<Self> {
        if !is_other() {
            return Ok(Self { pool: None });
        }
        let (prefix, ids) = (&config.sandbox.user, Ids::read()?);
        let accounts = accounts::pool(prefix, &ids)?;
        let remedy = accounts::remedy(prefix);
        if accounts.is_empty() {
            return Err(io::Error::other(format!(
                "started as root, this server runs each build as an account of its own, and there is no account {}; make them: {remedy}",
                accounts::name(prefix, 0)
            )));
        }
        let faults: Vec<String> = (accounts.iter())
            .flat_map(|account| accounts::faults(account, &ids))
            .collect();
        if !faults.is_empty() {
            return Err(io::Error::other(format!(
                "the accounts that builds run as are not apart from others; {remedy} makes missing and shared ranges anew:\n{}",
                faults.join("\n")
            )));
        }
        let users = Self::of(accounts, LOCKS.into());
        users.pool.iter().try_for_each(Pool::prepare)?;
        Ok(users)
    }

    fn of(accounts: Vec<Account>, locks: PathBuf) -> Self {
        let pool = Some(Pool { accounts, locks });
        Self { pool }
    }

    /// Checks that each user can pass through every directory down to `dir`.
    ///
    /// # Errors
    /// Names the directory in the way.
    pub fn check_way(&self, dir: &Path) -> io::Result<()> {
        let accounts = self.pool.iter().flat_map(|pool| &pool.accounts);
        accounts
            .map(BuildUser::of)
            .try_for_each(|user| user.check_way(dir))
    }

    /// How many accounts there are; none for an ordinary user, who needs but itself.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(0, |pool| pool.accounts.len())
    }

    /// Takes a user, when one is free beside `ahead` others that somebody waits for: one of
    /// those `wanted`, the first first, else any. Nothing runs as an account that was taken: whatever
    /// did was killed. Blocks no longer than killed processes take to be gone.
    ///
    /// # Errors
    /// When the locks cannot be used.
    pub fn take(&self, wanted: &Wanted, ahead: usize) -> io::Result<Result<Lease, Lacking>> {
        let Some(pool) = &self.pool else {
            return Ok(Ok(Lease {
                user: BuildUser::own(),
                held: None,
            }));
        };
        let mut unusable = Vec::new();
        loop {
            let (account, lock) = match pool.lock_one(wanted, ahead, &unusable)? {
                Ok(one) => one,
                Err(lacking) => return Ok(Err(lacking)),
            };
            let lease = Lease {
                user: BuildUser::of(account),
                held: Some(Held {
                    account: account.clone(),
                    _lock: lock,
                    ending: pool.ending(account),
                }),
            };
            match lease.clear() {
                Ok(()) => return Ok(Ok(lease)),
                Err(error) => {
                    tracing::error!(%error, account = account.name, "an account cannot be used");
                    unusable.push(account.name.as_str());
                }
            }
        }
    }
}

impl Pool {
    fn prepare(&self) -> io::Result<()> {
        let mut dir = fs::DirBuilder::new();
        let made = dir.recursive(true).mode(0o700).create(&self.locks);
        made.map_err(|error| {
            let dir = self.locks.display();
            io::Error::new(
                error.kind(),
                format!("{dir}, where accounts are locked, cannot be made: {error}"),
            )
        })
    }

    fn ending(&self, account: &Account) -> PathBuf {
        self.locks.join(format!("{}.ending", account.name))
    }

    fn is_ending(&self, account: &Account) -> bool {
        let since = fs::metadata(self.ending(account)).and_then(|mark| mark.modified());
        let age = since.ok().and_then(|since| since.elapsed().ok());
        age.is_some_and(|age| age < ENDING)
    }

    /// Locks an account, unless all that are free are for the `ahead`, or a better one will be free in a moment.
    fn lock_one(
        &self,
        wanted: &Wanted,
        ahead: usize,
        without: &[&str],
    ) -> io::Result<Result<(&Account, File), Lacking>> {
        self.prepare()?;
        // While one counts what is free, nobody else may take its counting for being taken.
        let _guard = lock(&self.locks.join(".lock"))?;
        let rank = |account: &Account| {
            let mut names = wanted.names.iter().enumerate();
            names
                .find(|(_, (_, name))| *name == account.name)
                .map_or((Warmth::Nothing, usize::MAX), |(place, (warmth, _))| {
                    (*warmth, place)
                })
        };
        let (mut free, mut ending) = (Vec::new(), Vec::new());
        for account in &self.accounts {
            if without.contains(&account.name.as_str()) {
                continue;
            }
            match try_lock(&self.locks.join(format!("{}.lock", account.name)))? {
                Some(lock) => free.push((account, lock)),
                None if self.is_ending(account) => ending.push(rank(account).0),
                None => {}
            }
        }
        if free.len() <= ahead {
            return Ok(Err(Lacking::All));
        }
        let best = free.into_iter().min_by_key(|(account, _)| rank(account));
        let Some((account, lock)) = best else {
            return Ok(Err(Lacking::All));
        };
        let (warmth, _) = rank(account);
        if wanted.is_patient && ending.into_iter().any(|other| other < warmth) {
            return Ok(Err(Lacking::Better));
        }
        let _ = fs::remove_file(self.ending(account));
        Ok(Ok((account, lock)))
    }
}

/// The user that a build runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildUser {
    /// Its name, for directories.
    pub name: String,
    /// Its ids, when they are not this process's own.
    ids: Option<(u32, u32)>,
}

impl BuildUser {
    /// This process's own user.
    pub fn own() -> Self {
        Self {
            name: format!("uid-{}", rustix::process::geteuid().as_raw()),
            ids: None,
        }
    }

    /// An account's.
    pub fn of(account: &Account) -> Self {
        Self {
            name: account.name.clone(),
            ids: Some((account.uid, account.gid)),
        }
    }

    /// Makes a command run as this user: its ids, and none of root's groups.
    pub fn apply(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.ids {
            // The standard library drops all supplementary groups when root sets a uid.
            command.uid(uid).gid(gid);
        }
    }

    /// Makes a directory that belongs to this user alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        self.give(path)
    }

    /// Gives a file or directory to this user.
    ///
    /// # Errors
    /// When the owner cannot be changed.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        match self.ids {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// Checks that this user can pass through every directory down to `dir`.
    ///
    /// # Errors
    /// Names the directory in the way.
    pub fn check_way(&self, dir: &Path) -> io::Result<()> {
        match self.obstacle(dir)? {
            None => Ok(()),
            Some(place) => Err(io::Error::other(format!(
                "the user {}, as which builds run, cannot pass through {}; chmod o+x it, or use another state directory",
                self.name,
                place.display()
            ))),
        }
    }

    /// The directory on the way to `path`, or `path` itself, that this user may not pass or execute.
    ///
    /// # Errors
    /// When one of them cannot be looked at.
    pub fn obstacle<'p>(&self, path: &'p Path) -> io::Result<Option<&'p Path>> {
        let Some((uid, gid)) = self.ids else {
            return Ok(None);
        };
        for place in path.ancestors() {
            let metadata = fs::metadata(place)?;
            let bit = match () {
                () if metadata.uid() == uid => 0o100,
                () if metadata.gid() == gid => 0o010,
                () => 0o001,
            };
            if metadata.mode() & bit == 0 {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Whether a file belongs to this user, and not to this process's own.
    pub fn has(&self, metadata: &fs::Metadata) -> bool {
        self.ids.is_some_and(|(uid, _)| metadata.uid() == uid)
    }
}

#[cfg(test)]
mod tests {
    use super::Warmth::{Nothing, Own, Shared};
    use super::*;

    /// Accounts that nobody runs as, with locks of their own.
    fn users(count: u32, locks: &Path) -> Users {
        let account = |n: u32| Account {
            name: accounts::name("x", n),
            uid: 4_200_000_000 + n,
            gid: 4_200_000_000 + n,
            home: "/".into(),
            subuids: Vec::new(),
        };
        Users::of((0..count).map(account).collect(), locks.join("users"))
    }

    fn name(lease: &Lease) -> &str {
        &lease.user.name
    }

    #[test]
    fn no_account_is_taken_twice_whoever_asks() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (users(3, dir.path()), users(3, dir.path()));
        let a = one.take(&Wanted::default(), 0).unwrap().unwrap();
        let b = other.take(&Wanted::default(), 0).unwrap().unwrap();
        let c = one.take(&Wanted::default(), 0).unwrap().unwrap();
        assert_eq!([name(&a), name(&b), name(&c)], ["x-0", "x-1", "x-2"]);
        assert!(one.take(&Wanted::default(), 0).unwrap().is_err());
        assert!(other.take(&Wanted::default(), 0).unwrap().is_err());
        drop(b);
        let b = one.take(&Wanted::default(), 0).unwrap().unwrap();
        assert_eq!(name(&b), "x-1");
    }

    #[test]
    fn the_preferred_one_is_taken_when_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let users = users(4, dir.path());
        let wanted = wanted(&[("gone", Nothing), ("x-2", Nothing), ("x-1", Nothing)]);
        let taken: Vec<Lease> =
            std::iter::from_fn(|| users.take(&wanted, 0).unwrap().ok()).collect();
        let names: Vec<&str> = taken.iter().map(name).collect();
        assert_eq!(names, ["x-2", "x-1", "x-0", "x-3"]);
    }

    fn wanted(names: &[(&str, Warmth)]) -> Wanted {
        let names = names
            .iter()
            .map(|(name, warmth)| (*warmth, (*name).to_owned()));
        Wanted {
            names: names.collect(),
            is_patient: true,
        }
    }

    #[test]
    fn who_finds_more_with_an_account_waits_for_the_tidying_up_and_for_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let users = users(3, dir.path());
        let first = users.take(&wanted(&[("x-1", Own)]), 0).unwrap().unwrap();
        let take = |wanted: &Wanted| {
            let lease = users.take(wanted, 0).unwrap();
            lease.map(|lease| lease.user.name)
        };
        let (other, waits) = (Ok("x-0".to_owned()), Err(Lacking::Better));
        assert_eq!(take(&wanted(&[("x-1", Own)])), other, "its build runs on");
        first.ends();
        assert_eq!(
            take(&wanted(&[("x-1", Own)])),
            waits,
            "it will be free in a moment"
        );
        assert_eq!(take(&wanted(&[("x-1", Own), ("x-0", Shared)])), waits);
        let as_good = [("x-1", Own), ("x-0", Own)];
        assert_eq!(take(&wanted(&as_good)), other, "one as good is free");
        assert_eq!(
            take(&wanted(&[("x-1", Nothing)])),
            other,
            "there is nothing to wait for"
        );
        let mut impatient = wanted(&[("x-1", Own)]);
        impatient.is_patient = false;
        assert_eq!(take(&impatient), other, "it has waited");
        let mark = File::open(dir.path().join("users/x-1.ending")).unwrap();
        mark.set_modified(std::time::SystemTime::now() - ENDING)
            .unwrap();
        assert_eq!(take(&wanted(&[("x-1", Own)])), other, "that takes too long");
        first.ends();
        drop(first);
        let again = users.take(&wanted(&[("x-1", Own)]), 0).unwrap().unwrap();
        assert_eq!(name(&again), "x-1");
        assert_eq!(
            take(&wanted(&[("x-1", Own)])),
            other,
            "its build has not ended yet"
        );
    }

    #[test]
    fn those_who_wait_longer_find_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let users = users(2, dir.path());
        assert!(users.take(&Wanted::default(), 2).unwrap().is_err());
        let first = users.take(&Wanted::default(), 1).unwrap().unwrap();
        assert!(users.take(&Wanted::default(), 1).unwrap().is_err());
        let second = users.take(&Wanted::default(), 0).unwrap().unwrap();
        assert_ne!(name(&first), name(&second));
    }

    #[test]
    fn the_locks_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let _lease = users(1, dir.path())
            .take(&Wanted::default(), 0)
            .unwrap()
            .unwrap();
        let mode = fs::metadata(dir.path().join("users")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn an_ordinary_user_shares_itself() {
        let users = Users { pool: None };
        let (a, b) = (
            users.take(&Wanted::default(), 9).unwrap(),
            users.take(&Wanted::default(), 9).unwrap(),
        );
        assert_eq!(a.unwrap().user, b.unwrap().user);
    }
}
