//! Credentials from the operator's files into the phase that needs them.
//!
//! The file of a secret must belong to its owner alone (mode 0600 or less). What the phases source and
//! build need lies in memory (`private`), the former only until foreign code runs; publish gets its own
//! through a pipe.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::build::Plan;
use crate::config::Config;
use crate::runner::WorkDir;
use crate::runner::images::PULL;
use crate::runner::mirrored::MIRROR;
use crate::runner::source::{GIT_CREDENTIALS, GitCredentialFile};
use crate::runner::workdir::{write_json, write_private};

use super::mirror::Mirror;
use super::user::BuildUser;

/// What a template writes where a field is not there (text/template of Go).
const MISSING: &[u8] = b"<no value>";

/// Reads a secret; refuses a file that others can read.
///
/// # Errors
/// Names the file.
pub fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let named = |what: String| io::Error::other(format!("{}: {what}", path.display()));
    let mode = fs::metadata(path)
        .map_err(|error| named(error.to_string()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(named(format!(
            "others can read it (mode {:o}); make it 0600",
            mode & 0o777
        )));
    }
    let secret = fs::read(path).map_err(|error| named(error.to_string()))?;
    if secret == MISSING {
        let text = "Vault has no such field at the path of this task's secrets";
        return Err(named(text.to_owned()));
    }
    Ok(secret)
}

/// Registry credentials for publish.
///
/// # Errors
/// When the file cannot be read.
pub fn registry(config: &Config) -> io::Result<Vec<u8>> {
    match &config.registry.auth_file {
        None => Ok(b"{}".to_vec()),
        Some(path) => read_secret(path),
    }
}

/// Whether source or build need anything that is secret.
pub fn are_needed(config: &Config, plan: &Plan) -> bool {
    config.registry.auth_file.is_some()
        || !config.git.credentials.is_empty()
        || !plan.secrets.is_empty()
        || !plan.test_secrets().is_empty()
}

/// Lays out what source and build may use, owned by the user that builds run as, where there is a
/// place for it.
///
/// # Errors
/// When a file of the operator cannot be read.
pub fn lay_out(
    config: &Config,
    plan: &Plan,
    work: &WorkDir,
    user: &BuildUser,
    mirror: Option<&Mirror>,
) -> io::Result<()> {
    let (Some(credentials), Some(secrets), Some(of_tests)) =
        (work.credentials(), work.secrets(), work.test_secrets())
    else {
        return Ok(());
    };
    user.make_dir(&credentials)?;
    if let Some(mirror) = mirror {
        let location = mirror.location().as_bytes();
        give(user, &credentials.join(MIRROR), location)?;
    }
    if config.registry.auth_file.is_some() {
        give(user, &credentials.join(PULL), &registry(config)?)?;
    }
    if !config.git.credentials.is_empty() {
        let mut list = Vec::new();
        for (index, one) in config.git.credentials.iter().enumerate() {
            let copy = |from: &Path, name: &str, secret: bool| -> io::Result<_> {
                let to = credentials.join(format!("{name}-{index}"));
                let bytes = if secret {
                    read_secret(from)?
                } else {
                    fs::read(from)?
                };
                give(user, &to, &bytes)?;
                Ok(to)
            };
            let password = one.password_file.as_deref().map(read_secret).transpose()?;
            list.push(GitCredentialFile {
                url: one.url.clone(),
                username: one.username.clone(),
                password: password
                    .map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()),
                ssh_key: one
                    .ssh_key
                    .as_deref()
                    .map(|path| copy(path, "key", true))
                    .transpose()?,
                known_hosts: one
                    .known_hosts
                    .as_deref()
                    .map(|path| copy(path, "hosts", false))
                    .transpose()?,
            });
        }
        let path = credentials.join(GIT_CREDENTIALS);
        write_json(&path, &list)?;
        user.give(&path)?;
    }
    user.make_dir(&secrets)?;
    for name in &plan.secrets {
        give(user, &secrets.join(name), &offered(config, name)?)?;
    }
    user.make_dir(&of_tests)?;
    for name in plan.test_secrets() {
        let path = of_tests.join(name);
        give(user, &path, &offered(config, name)?)?;
        // Only root of a test's container could read it otherwise, and images have users of their own.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
    }
    Ok(())
}

fn offered(config: &Config, name: &str) -> io::Result<Vec<u8>> {
    let path = (config.secrets.get(name))
        .ok_or_else(|| io::Error::other(format!("the secret {name} is no longer offered")))?;
    read_secret(path)
}

/// Writes a file of which only the user that builds run as can read anything.
///
/// # Errors
/// Names the file.
pub fn give(user: &BuildUser, path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_private(path, bytes)
        .and_then(|()| user.give(path))
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Everything secret that the runner must mask, of what it was given.
pub fn secrets_in(work: &WorkDir) -> Vec<Vec<u8>> {
    let mut secrets = Vec::new();
    let dirs = [work.credentials(), work.secrets(), work.test_secrets()];
    for dir in dirs.into_iter().flatten() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Ok(bytes) = fs::read(entry.path()) else {
                continue;
            };
            if name == MIRROR {
                // In a URL there is something between the address and the token.
                let text = String::from_utf8_lossy(&bytes);
                let token = text.split_once('/').map(|(_, token)| token.into());
                secrets.extend(token);
            } else if name == PULL {
                if let Ok(auth) = crate::registry::Auth::from_slice(&bytes) {
                    secrets.extend(auth.secrets().into_iter().map(String::into_bytes));
                }
            } else if name == GIT_CREDENTIALS {
                let list: Vec<GitCredentialFile> =
                    serde_json::from_slice(&bytes).unwrap_or_default();
                let passwords = list.into_iter().filter_map(|one| one.password);
                secrets.extend(passwords.map(String::into_bytes));
            } else if !name.to_string_lossy().starts_with("hosts-") {
                secrets.push(bytes);
            }
        }
    }
    secrets
}
