//! The accounts that builds run as when the server is root: `PREFIX-0`, `PREFIX-1`, … up to the
//! first that is missing. `nomad-build setup` makes them.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::runner::subid::{Owner, Range, SUBGID, SUBUID, Table};

/// More than any machine runs builds; some name services know every name.
pub const MOST: u32 = 1024;
/// Below it each account has its home.
pub(super) const HOMES: &str = "/var/lib/nomad-build-users";

/// An account for builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its ids.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Home in the password database.
    pub home: PathBuf,
    /// Its subordinate uids.
    pub subuids: Vec<Range>,
}

impl Account {
    /// As whom the files of subordinate ids name it.
    pub fn owner(&self) -> Owner<'_> {
        Owner {
            name: &self.name,
            uid: Some(self.uid),
        }
    }

    /// Whether a process with this uid runs for it.
    pub fn has_uid(&self, uid: u32) -> bool {
        uid == self.uid || self.subuids.iter().any(|range| range.contains(uid))
    }
}

/// Who has which ids on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// Users.
    pub uids: Table,
    /// Groups.
    pub gids: Table,
}

impl Ids {
    /// Reads the files.
    ///
    /// # Errors
    /// When one exists and cannot be read.
    pub fn read() -> io::Result<Self> {
        let table = |file: &'static str, accounts: &str| {
            Ok::<_, io::Error>(Table::parse(file, &text(file)?, &text(accounts)?))
        };
        Ok(Self {
            uids: table(SUBUID, "/etc/passwd")?,
            gids: table(SUBGID, "/etc/group")?,
        })
    }
}

fn text(file: &str) -> io::Result<String> {
    match fs::read(file) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{file}: {error}"))),
    }
}

/// Name of the account number `index`.
pub fn name(prefix: &str, index: u32) -> String {
    format!("{prefix}-{index}")
}

/// Home of an account that `nomad-build setup` makes.
pub fn home(name: &str) -> PathBuf {
    PathBuf::from(HOMES).join(name)
}

/// What makes these accounts, for messages.
pub fn remedy(prefix: &str) -> String {
    match prefix {
        crate::config::DEFAULT_USER => "nomad-build setup".into(),
        _ => format!("nomad-build setup --prefix {prefix}"),
    }
}

/// An account, if it exists.
///
/// # Errors
/// When the user database does not answer.
pub fn find(name: &str, ids: &Ids) -> io::Result<Option<Account>> {
    let Some(user) = nix::unistd::User::from_name(name)? else {
        return Ok(None);
    };
    let mut account = Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir,
        subuids: Vec::new(),
    };
    account.subuids = ids.uids.of(account.owner());
    Ok(Some(account))
}

/// All accounts up to the first that is missing.
///
/// # Errors
/// When the user database does not answer.
pub fn pool(prefix: &str, ids: &Ids) -> io::Result<Vec<Account>> {
    let mut accounts = Vec::new();
    for index in 0..MOST {
        match find(&name(prefix, index), ids)? {
            Some(account) => accounts.push(account),
            None => break,
        }
    }
    Ok(accounts)
}

/// What keeps an account's builds from being apart from everybody else; empty when nothing does.
pub fn faults(account: &Account, ids: &Ids) -> Vec<String> {
    let name = &account.name;
    let mut faults = Vec::new();
    if account.uid == 0 || account.gid == 0 {
        faults.push(format!("{name} must be neither root nor of root's group"));
    }
    for other in ids.uids.accounts_with(account.uid) {
        if other != name {
            faults.push(format!(
                "{name} and {other} have the same uid {}",
                account.uid
            ));
        }
    }
    faults.extend(ids.uids.faults(account.owner(), Some(account.uid)));
    faults.extend(ids.gids.faults(account.owner(), Some(account.gid)));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_shares_no_id_with_anybody() {
        let passwd = "root:x:0:0::/root:/bin/sh\na-0:x:990:990::/:/x\nb:x:990:7::/:/x\na-1:x:991:991::/:/x\n";
        let sub = "a-0:100000:65536\na-1:165536:65536\n";
        let ids = Ids {
            uids: Table::parse("/etc/subuid", sub, passwd),
            gids: Table::parse("/etc/subgid", "a-1:165536:65536\n", "root:x:0:\n"),
        };
        let account = |name: &str, uid: u32, gid: u32| Account {
            name: name.into(),
            uid,
            gid,
            home: "/".into(),
            subuids: Vec::new(),
        };
        assert_eq!(
            faults(&account("a-0", 990, 0), &ids),
            [
                "a-0 must be neither root nor of root's group",
                "a-0 and b have the same uid 990",
                "a-0 has no range of 65536 ids in /etc/subgid"
            ]
        );
        assert!(faults(&account("a-1", 991, 991), &ids).is_empty());
    }

    #[test]
    fn the_command_that_makes_accounts_names_a_prefix_of_ones_own() {
        assert_eq!(remedy("nomad-build"), "nomad-build setup");
        assert_eq!(remedy("ci"), "nomad-build setup --prefix ci");
    }
}
