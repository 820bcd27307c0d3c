//! Who builds run as: this user, or, when this is root, an unprivileged one.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The user that builds run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildUser {
    /// Its name, for directories.
    pub name: String,
    /// Its ids, when they are not this process's own.
    ids: Option<(u32, u32)>,
}

impl BuildUser {
    /// The user for this process; `name` counts only for root.
    ///
    /// # Errors
    /// When this is root and there is no such user.
    pub fn for_this_process(name: &str) -> io::Result<Self> {
        let uid = nix::unistd::Uid::effective();
        if !uid.is_root() {
            return Ok(Self {
                name: format!("uid-{uid}"),
                ids: None,
            });
        }
        match nix::unistd::User::from_name(name)? {
            Some(user) if user.uid.is_root() => Err(io::Error::other(format!(
                "builds must not run as root: sandbox.user is {name}"
            ))),
            Some(user) => Ok(Self {
                name: user.name,
                ids: Some((user.uid.as_raw(), user.gid.as_raw())),
            }),
            None => Err(io::Error::other(format!(
                "the user {name}, as which builds run when the server is root, does not exist; make it: useradd --system --create-home {name} && usermod --add-subuids 524288-589823 --add-subgids 524288-589823 {name}"
            ))),
        }
    }

    /// This process's own user.
    #[cfg(test)]
    pub fn nobody_else() -> Self {
        Self {
            name: "self".into(),
            ids: None,
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
        let Some((uid, gid)) = self.ids else {
            return Ok(());
        };
        for ancestor in dir.ancestors() {
            let metadata = fs::metadata(ancestor)?;
            let bit = match () {
                () if metadata.uid() == uid => 0o100,
                () if metadata.gid() == gid => 0o010,
                () => 0o001,
            };
            if metadata.mode() & bit == 0 {
                return Err(io::Error::other(format!(
                    "the user {}, as which builds run, cannot pass through {}; chmod o+x it, or use another state directory",
                    self.name,
                    ancestor.display()
                )));
            }
        }
        Ok(())
    }

    /// Whether files of subordinate users can be removed without a user namespace.
    pub fn is_other(&self) -> bool {
        self.ids.is_some()
    }
}
