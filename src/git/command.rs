//! The one way in which git is called. Pure: it builds commands and starts none.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::credentials::Credentials;
use crate::build::git_url::Transport;

/// Settings of every call. Where git reads files, it reads the empty `/dev/null`.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.symlinks=true",
    "core.autocrlf=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.askPass=",
    "credential.helper=",
    "protocol.version=2",
    "http.followRedirects=false",
    // Less than 1000 bytes a second for a minute is a dead connection.
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "transfer.fsckObjects=true",
    // Always one pack: few files, and what is big is never wholly in memory.
    "fetch.unpackLimit=1",
    "core.bigFileThreshold=64m",
    "safe.bareRepository=explicit",
    "transfer.bundleURI=false",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    // Nothing of it outlives the build.
    "core.fsync=none",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
];

/// The ways of a machine: which git, and what of its environment git gets to see.
#[derive(Debug, Clone)]
pub struct Git {
    /// The git binary; a bare name is looked up in `search_path`.
    pub program: PathBuf,
    /// `PATH` of git.
    pub search_path: OsString,
    /// Variables that the operator wants git to have, such as `HTTPS_PROXY` or `GIT_SSL_CAINFO`.
    pub environment: Vec<(OsString, OsString)>,
    /// What one process of git may have for its data, in bytes.
    pub memory: u64,
}

/// Where a repository and its tree are.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The repository itself, outside of the tree.
    pub git_dir: &'a Path,
    /// The tree.
    pub work_tree: &'a Path,
}

impl Default for Git {
    fn default() -> Self {
        Self {
            program: "git".into(),
            search_path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            environment: Vec::new(),
            memory: 1 << 30,
        }
    }
}

impl Git {
    /// A git that can reach no network, has no credentials and reads no configuration.
    pub fn command<I, S>(&self, place: Place<'_>, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("PATH", &self.search_path)
            .env("LC_ALL", "C")
            .env("LANGUAGE", "")
            // No .netrc, no .gitconfig, no .ssh.
            .env("HOME", "/nonexistent")
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_ALLOW_PROTOCOL", "none")
            .env("GIT_DIR", place.git_dir)
            .env("GIT_WORK_TREE", place.work_tree)
            .current_dir(place.work_tree)
            .arg("--no-pager");
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(arguments);
        command
    }

    /// A git that may use one transport, with credentials for it.
    pub fn network_command<I, S>(
        &self,
        place: Place<'_>,
        transport: Transport,
        credentials: Option<&Credentials>,
        arguments: I,
    ) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(place, arguments);
        command.env("GIT_ALLOW_PROTOCOL", transport.name());
        if let Some((key, value)) = credentials.and_then(Credentials::setting) {
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", key)
                .env("GIT_CONFIG_VALUE_0", value);
        }
        if transport == Transport::Ssh {
            let files = credentials.and_then(Credentials::key_files);
            command
                .env("GIT_SSH_COMMAND", ssh_command(files))
                .env("GIT_SSH_VARIANT", "ssh");
        }
        command
    }
}

/// The words are literal for a shell and for ssh: [`Credentials::key`] sees to it.
fn ssh_command(files: Option<(&Path, &Path)>) -> OsString {
    let mut command = OsString::from(
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes \
         -o IdentityAgent=none -o ForwardAgent=no -o ClearAllForwardings=yes \
         -o PermitLocalCommand=no -o UpdateHostKeys=no -o ConnectTimeout=30 \
         -o ServerAliveInterval=20 -o GlobalKnownHostsFile=/dev/null",
    );
    let (key, known_hosts) = files.unwrap_or((Path::new("none"), Path::new("/dev/null")));
    command.push(" -o UserKnownHostsFile=");
    command.push(known_hosts);
    command.push(" -o IdentityFile=");
    command.push(key);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::GitUrl;
    use std::collections::BTreeMap;

    fn place() -> Place<'static> {
        Place {
            git_dir: Path::new("/w/git"),
            work_tree: Path::new("/w/tree"),
        }
    }

    fn environment(command: &Command) -> BTreeMap<String, String> {
        let text = |value: &OsStr| value.to_string_lossy().into_owned();
        let variables = command.as_std().get_envs();
        variables
            .filter_map(|(name, value)| Some((text(name), text(value?))))
            .collect()
    }

    fn arguments(command: &Command) -> String {
        let words = command.as_std().get_args().map(OsStr::to_string_lossy);
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_local_git_reaches_nothing() {
        let command = Git::default().command(place(), ["apply"]);
        let variables = environment(&command);
        assert_eq!(variables["GIT_ALLOW_PROTOCOL"], "none");
        assert_eq!(variables["GIT_CONFIG_GLOBAL"], "/dev/null");
        assert_eq!(variables["GIT_DIR"], "/w/git");
        assert!(!variables.contains_key("GIT_SSH_COMMAND"));
        let arguments = arguments(&command);
        assert!(arguments.contains("-c core.hooksPath=/dev/null"));
        assert!(arguments.contains("-c http.followRedirects=false"));
        assert!(arguments.ends_with(" apply"));
    }

    #[test]
    fn a_token_is_not_an_argument() {
        let prefix = GitUrl::parse("https://example.com/org", false).unwrap();
        let credentials = Credentials::basic(prefix, "user", "hunter2").unwrap();
        let command = Git::default().network_command(
            place(),
            Transport::Https,
            Some(&credentials),
            ["fetch"],
        );
        let variables = environment(&command);
        assert_eq!(variables["GIT_ALLOW_PROTOCOL"], "https");
        assert_eq!(
            variables["GIT_CONFIG_KEY_0"],
            "http.https://example.com/org.extraHeader"
        );
        let encoded = "dXNlcjpodW50ZXIy";
        assert!(variables["GIT_CONFIG_VALUE_0"].ends_with(encoded));
        let arguments = arguments(&command);
        assert!(!arguments.contains("hunter2") && !arguments.contains(encoded));
    }

    #[test]
    fn ssh_trusts_known_hosts_only() {
        let prefix = GitUrl::parse("git@example.com:org", false).unwrap();
        let (key, hosts) = (Path::new("/k/id"), Path::new("/k/hosts"));
        let credentials = Credentials::key(prefix, key, hosts).unwrap();
        let ssh = |credentials| {
            let command =
                Git::default().network_command(place(), Transport::Ssh, credentials, ["fetch"]);
            environment(&command)["GIT_SSH_COMMAND"].clone()
        };
        let with = ssh(Some(&credentials));
        for option in [
            "-F /dev/null",
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "UserKnownHostsFile=/k/hosts",
            "IdentityFile=/k/id",
        ] {
            assert!(with.contains(option), "{option}");
        }
        assert!(ssh(None).contains("UserKnownHostsFile=/dev/null -o IdentityFile=none"));
    }

    #[test]
    fn the_operators_variables_cannot_undo_the_rest() {
        let git = Git {
            environment: vec![
                ("HTTPS_PROXY".into(), "http://proxy".into()),
                ("GIT_ALLOW_PROTOCOL".into(), "ext".into()),
            ],
            ..Git::default()
        };
        let variables = environment(&git.command(place(), ["apply"]));
        assert_eq!(variables["HTTPS_PROXY"], "http://proxy");
        assert_eq!(variables["GIT_ALLOW_PROTOCOL"], "none");
    }
}
