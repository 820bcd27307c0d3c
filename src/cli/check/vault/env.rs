//! Where Vault is and with what token: the customary variables.
//!
//! <https://developer.hashicorp.com/vault/docs/commands#environment-variables>

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::HeaderValue;

/// Where Vault's own command line looks, too.
const DEFAULT_ADDRESS: &str = "https://127.0.0.1:8200";

/// See the module.
pub struct Env {
    /// `http://` or `https://`, a host and a port.
    pub address: Url,
    /// None is there.
    pub token: Option<String>,
    /// PEM certificates of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether any certificate is taken.
    pub skip_verify: bool,
    /// Namespace of Vault Enterprise and OpenBao.
    pub namespace: Option<String>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("Env")
            .field("address", &self.address.as_str())
            .field("token", &token)
            .field("ca_file", &self.ca_file)
            .field("skip_verify", &self.skip_verify)
            .field("namespace", &self.namespace)
            .finish()
    }
}

impl Env {
    /// Reads `VAULT_ADDR`, `VAULT_TOKEN`, else the file `~/.vault-token`, `VAULT_CACERT`,
    /// `VAULT_SKIP_VERIFY` and `VAULT_NAMESPACE`.
    ///
    /// # Errors
    /// When a value cannot be used; none of them is in the text.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> io::Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let address = set("VAULT_ADDR").unwrap_or_else(|| DEFAULT_ADDRESS.into());
        let token = match set("VAULT_TOKEN") {
            Some(token) => Some(token),
            None => set("HOME")
                .map(|home| kept_token(Path::new(&home)))
                .transpose()?
                .flatten(),
        };
        let skip_verify = match set("VAULT_SKIP_VERIFY") {
            Some(value) => !matches!(value.to_lowercase().as_str(), "0" | "f" | "false"),
            None => false,
        };
        Ok(Self {
            address: parse(&address).ok_or_else(|| {
                io::Error::other("VAULT_ADDR must be http:// or https://, a host and a port")
            })?,
            token: token.map(|token| clean(&token)).transpose()?,
            ca_file: set("VAULT_CACERT").map(PathBuf::from),
            skip_verify,
            namespace: set("VAULT_NAMESPACE"),
        })
    }
}

fn parse(address: &str) -> Option<Url> {
    let url = Url::parse(address).ok()?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && matches!(url.path(), "" | "/")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none();
    plain.then_some(url)
}

/// What `vault login` has left.
fn kept_token(home: &Path) -> io::Result<Option<String>> {
    let path = home.join(".vault-token");
    match std::fs::read_to_string(&path) {
        Ok(token) => Ok(Some(token).filter(|token| !token.trim().is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::other(format!("{}: {error}", path.display()))),
    }
}

fn clean(token: &str) -> io::Result<String> {
    let token = token.trim();
    HeaderValue::from_str(token)
        .map_err(|_| io::Error::other("Vault's token has characters that no token has"))?;
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, &str)]) -> io::Result<Env> {
        Env::read(|name| {
            let found = values.iter().find(|(one, _)| *one == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_customary_variables_are_read() {
        let env = read(&[]).unwrap();
        assert_eq!(env.address.as_str(), "https://127.0.0.1:8200/");
        assert_eq!(
            (env.token, env.ca_file, env.skip_verify, env.namespace),
            (None, None, false, None)
        );
        let env = read(&[
            ("VAULT_ADDR", "http://v:1"),
            ("VAULT_TOKEN", " t\n"),
            ("VAULT_CACERT", "/ca"),
            ("VAULT_SKIP_VERIFY", "true"),
            ("VAULT_NAMESPACE", "team"),
        ])
        .unwrap();
        assert_eq!(env.address.as_str(), "http://v:1/");
        assert_eq!(env.token.as_deref(), Some("t"));
        assert_eq!(env.ca_file, Some("/ca".into()));
        assert!(env.skip_verify);
        assert_eq!(env.namespace.as_deref(), Some("team"));
    }

    #[test]
    fn the_token_of_vault_login_is_found() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        assert_eq!(read(&[("HOME", path)]).unwrap().token, None);
        std::fs::write(home.path().join(".vault-token"), "kept\n").unwrap();
        assert_eq!(
            read(&[("HOME", path)]).unwrap().token.as_deref(),
            Some("kept")
        );
        let both = [("HOME", path), ("VAULT_TOKEN", "set")];
        assert_eq!(read(&both).unwrap().token.as_deref(), Some("set"));
    }

    #[test]
    fn no_value_is_in_an_error_or_shown() {
        for (name, value) in [
            ("VAULT_ADDR", "http://s3cret@v:1"),
            ("VAULT_ADDR", "http://x:s3cret@v"),
            ("VAULT_ADDR", "s3cret"),
            ("VAULT_ADDR", "unix:///s3cret"),
            ("VAULT_ADDR", "http://v/s3cret"),
            ("VAULT_TOKEN", "s3cret\nx"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let shown = format!("{:?}", read(&[("VAULT_TOKEN", "s3cret")]).unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
