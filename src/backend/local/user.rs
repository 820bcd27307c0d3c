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

use crate::config::Config;

use super::accounts::{self, Account, Ids};
use super::evict::evict;
use super::store::{lock, try_lock};

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
    /// The account and its lock, which is closed on exec and so ends with this process.
    held: Option<(Account, File)>,
}

impl Lease {
    /// Kills whatever runs as this user, and waits until it is gone; nothing for an ordinary user,
    /// whose processes are not only builds. Blocks for a few seconds at most.
    ///
    /// # Errors
    /// When something does not end.
    pub fn clear(&self) -> io::Result<()> {
        match &self.held {
            Some((account, _)) => evict(|uid| account.has_uid(uid)),
            None => Ok(()),
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
    /// `prefer`, the first first, else any. Nothing runs as an account that was taken: whatever
    /// did was killed. Blocks no longer than killed processes take to be gone.
    ///
    /// # Errors
    /// When the locks cannot be used.
    pub fn take(&self, prefer: &[String], ahead: usize) -> io::Result<Option<Lease>> {
        let Some(pool) = &self.pool else {
            return Ok(Some(Lease {
                user: BuildUser::own(),
                held: None,
            }));
        };
        let mut unusable = Vec::new();
        while let Some((account, lock)) = pool.lock_one(prefer, ahead, &unusable)? {
            let lease = Lease {
                user: BuildUser::of(account),
                held: Some((account.clone(), lock)),
            };
            match lease.clear() {
                Ok(()) => return Ok(Some(lease)),
                Err(error) => {
                    tracing::error!(%error, account = account.name, "an account cannot be used");
                    unusable.push(account.name.as_str());
                }
            }
        }
        Ok(None)
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

    /// Locks an account, unless all that are free are for the `ahead`.
    fn lock_one(
        &self,
        prefer: &[String],
        ahead: usize,
        without: &[&str],
    ) -> io::Result<Option<(&Account, File)>> {
        self.prepare()?;
        // While one counts what is free, nobody else may take its counting for being taken.
        let _guard = lock(&self.locks.join(".lock"))?;
        let mut free = Vec::new();
        for account in &self.accounts {
            if !without.contains(&account.name.as_str())
                && let Some(lock) = try_lock(&self.locks.join(format!("{}.lock", account.name)))?
            {
                free.push((account, lock));
            }
        }
        if free.len() <= ahead {
            return Ok(None);
        }
        let rank = |name: &str| prefer.iter().position(|one| one == name);
        Ok((free.into_iter())
            .min_by_key(|(account, _)| rank(&account.name).unwrap_or(prefer.len())))
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
        let a = one.take(&[], 0).unwrap().unwrap();
        let b = other.take(&[], 0).unwrap().unwrap();
        let c = one.take(&[], 0).unwrap().unwrap();
        assert_eq!([name(&a), name(&b), name(&c)], ["x-0", "x-1", "x-2"]);
        assert!(one.take(&[], 0).unwrap().is_none());
        assert!(other.take(&[], 0).unwrap().is_none());
        drop(b);
        let b = one.take(&[], 0).unwrap().unwrap();
        assert_eq!(name(&b), "x-1");
    }

    #[test]
    fn the_preferred_one_is_taken_when_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let users = users(4, dir.path());
        let prefer = ["gone".to_owned(), "x-2".to_owned(), "x-1".to_owned()];
        let taken: Vec<Lease> = std::iter::from_fn(|| users.take(&prefer, 0).unwrap()).collect();
        let names: Vec<&str> = taken.iter().map(name).collect();
        assert_eq!(names, ["x-2", "x-1", "x-0", "x-3"]);
    }

    #[test]
    fn those_who_wait_longer_find_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let users = users(2, dir.path());
        assert!(users.take(&[], 2).unwrap().is_none());
        let first = users.take(&[], 1).unwrap().unwrap();
        assert!(users.take(&[], 1).unwrap().is_none());
        let second = users.take(&[], 0).unwrap().unwrap();
        assert_ne!(name(&first), name(&second));
    }

    #[test]
    fn the_locks_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let _lease = users(1, dir.path()).take(&[], 0).unwrap().unwrap();
        let mode = fs::metadata(dir.path().join("users")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn an_ordinary_user_shares_itself() {
        let users = Users { pool: None };
        let (a, b) = (users.take(&[], 9).unwrap(), users.take(&[], 9).unwrap());
        assert_eq!(a.unwrap().user, b.unwrap().user);
    }
}
