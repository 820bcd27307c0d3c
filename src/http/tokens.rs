//! Who may call: tokens, of which only digests are kept.
//!
//! A file has a line `NAME SHA256` for each token: the principal, and the digest of the token in
//! hexadecimal digits. Tokens are 256 random bits, so that their digests need no salt. A file that has
//! changed is read again: a line that is gone is a token that is gone.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::build::validate::is_name;
use crate::service::Principal;

use crate::runner::fingerprint::Fingerprint;

/// Beginning of every token: scanners for secrets know it by that.
const PREFIX: &str = "nbt_";

/// A new token.
pub struct Token(String);

impl Token {
    /// Makes one of 256 random bits.
    ///
    /// # Errors
    /// When the kernel has none.
    pub fn new() -> io::Result<Self> {
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random))))
    }

    /// What its owner is given, once.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// The line of a file of tokens that lets it in.
    pub fn line(&self, name: &str) -> String {
        format!("{name} {}\n", digest(&self.0))
    }
}

fn digest(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

/// A file of tokens.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    known: Mutex<Known>,
}

/// What was read, and of which state of the file.
#[derive(Debug, Default)]
struct Known {
    state: Option<Fingerprint>,
    lines: Vec<(String, String)>,
    /// Why nothing could be read.
    fault: Option<String>,
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, others can write to it, or one of its lines is none.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let tokens = Self {
            path,
            known: Mutex::default(),
        };
        tokens.refresh()?;
        Ok(tokens)
    }

    /// Who has this token, if anybody.
    pub fn owner(&self, token: &str) -> Option<Principal> {
        if let Err(error) = self.refresh() {
            self.close(&error);
        }
        // Digests of secrets may be compared in any time: who is asked for cannot choose them.
        let wanted = digest(token);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        (known.lines.iter())
            .find(|(_, digest)| *digest == wanted)
            .map(|(name, _)| Principal(format!("token:{name}")))
    }

    /// What cannot be read lets nobody in: a token that was taken away must not stay.
    fn close(&self, error: &io::Error) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = Some(error.to_string());
        if known.fault != fault {
            tracing::error!(file = %self.path.display(), %error, "the tokens cannot be read: nobody gets in");
        }
        *known = Known {
            fault,
            ..Known::default()
        };
    }

    fn refresh(&self) -> io::Result<()> {
        let metadata = fs::metadata(&self.path)?;
        let state = Fingerprint::of(&metadata);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.state == Some(state) {
            return Ok(());
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(io::Error::other(
                "others can write to it; make it mode 0600",
            ));
        }
        let lines = parse(&fs::read_to_string(&self.path)?)?;
        *known = Known {
            state: Some(state),
            lines,
            fault: None,
        };
        Ok(())
    }
}

fn parse(text: &str) -> io::Result<Vec<(String, String)>> {
    let lines = text.lines().enumerate();
    lines
        .map(|(index, line)| (index + 1, line.split('#').next().unwrap_or_default().trim()))
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some(name), Some(digest), None)
                    if is_name(name) && digest.len() == 64 && hex::decode(digest).is_ok() =>
                {
                    Ok((name.to_owned(), digest.to_ascii_lowercase()))
                }
                // Never the line itself: somebody may have put a token there.
                _ => Err(io::Error::other(format!(
                    "line {number} is no NAME SHA256 (64 hexadecimal digits); nomad-build token NAME makes one"
                ))),
            }
        })
        .collect()
}

/// Adds a line to a file of tokens, which is made where there is none.
///
/// # Errors
/// When it cannot be written.
pub fn add(path: &Path, line: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut options = fs::OpenOptions::new();
    let mut file = (options.create(true).append(true).read(true))
        .mode(0o600)
        .open(path)?;
    let mut before = Vec::new();
    file.read_to_end(&mut before)?;
    // Somebody may have left the last line without its end.
    let gap = if matches!(before.last(), None | Some(b'\n')) {
        ""
    } else {
        "\n"
    };
    file.write_all(format!("{gap}{line}").as_bytes())?;
    file.sync_all()
}

/// At the first start there is a token for the operator: its file, and the one that lets it in.
///
/// # Errors
/// When they cannot be written.
pub fn first(tokens: &Path) -> io::Result<Option<PathBuf>> {
    if tokens.exists() {
        return Ok(None);
    }
    let token = Token::new()?;
    let secret = tokens.with_file_name("token");
    // One of an earlier state directory may be open to others.
    match fs::remove_file(&secret) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = (options.create_new(true).write(true))
        .mode(0o600)
        .open(&secret)?;
    writeln!(file, "{}", token.secret())?;
    file.sync_all()?;
    add(tokens, &token.line("operator"))?;
    Ok(Some(secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn name(tokens: &Tokens, secret: &str) -> Option<String> {
        tokens.owner(secret).map(|principal| principal.0)
    }

    #[test]
    fn a_token_is_let_in_until_its_line_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let secret = first(&path).unwrap().unwrap();
        assert_eq!(first(&path).unwrap(), None, "only once");
        let secret = fs::read_to_string(secret).unwrap();
        let tokens = Tokens::open(path.clone()).unwrap();
        assert_eq!(
            name(&tokens, secret.trim()).as_deref(),
            Some("token:operator")
        );
        let other = Token::new().unwrap();
        assert_eq!(name(&tokens, other.secret()), None);
        add(&path, &other.line("ci")).unwrap();
        assert_eq!(name(&tokens, other.secret()).as_deref(), Some("token:ci"));
        fs::write(&path, format!("# nobody else\n{}", other.line("ci"))).unwrap();
        assert_eq!(name(&tokens, secret.trim()), None);
        // Without an end of its last line, and then not at all.
        fs::write(&path, other.line("ci").trim_end()).unwrap();
        add(&path, &Token::new().unwrap().line("more")).unwrap();
        assert_eq!(name(&tokens, other.secret()).as_deref(), Some("token:ci"));
        let kept = fs::read_to_string(&path).unwrap();
        assert!(!kept.contains(other.secret()));
        for broken in ["ci\n", ""] {
            fs::write(&path, broken).unwrap();
            assert_eq!(name(&tokens, other.secret()), None, "{broken:?}");
            fs::write(&path, &kept).unwrap();
            assert_eq!(name(&tokens, other.secret()).as_deref(), Some("token:ci"));
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(name(&tokens, other.secret()), None);
    }

    #[test]
    fn a_file_that_cannot_be_trusted_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        assert!(Tokens::open(path.clone()).is_err());
        fs::write(&path, "ci nbt_secret\n").unwrap();
        let error = Tokens::open(path.clone()).unwrap_err().to_string();
        assert!(
            error.contains("line 1") && !error.contains("secret"),
            "{error}"
        );
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(Tokens::open(path).unwrap_err().to_string().contains("0600"));
    }
}
