//! What a build has handed over, saved where the user wants it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::build::digest::Hashing;
use crate::build::output::{IMAGE, OutputStatus};
use crate::build::status::{BuildStatus, StatusAnswer};
use crate::client::Steady;

use super::reach::{arguments, read};
use super::show;

/// How long outputs may take from elsewhere into this process, and between two looks.
const FETCHED_WITHIN: Duration = Duration::from_secs(30 * 60);
const PAUSE: Duration = Duration::from_millis(500);

/// A path in the image, and the file that is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extract {
    from: String,
    to: PathBuf,
    /// The caller said where.
    is_named: bool,
}

impl FromStr for Extract {
    type Err = String;

    /// `PATH=FILE`, or `PATH` alone for a file of the same name here.
    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.split_once('=');
        let (from, to) = match named {
            Some((from, to)) => (from, PathBuf::from(to)),
            None => {
                let name = Path::new(text).file_name();
                (text, name.map(PathBuf::from).unwrap_or_default())
            }
        };
        if !from.starts_with('/') || to.as_os_str().is_empty() {
            return Err(
                "an absolute path in the image is needed, such as /usr/local/bin/app=app".into(),
            );
        }
        Ok(Self {
            from: from.to_owned(),
            to,
            is_named: named.is_some(),
        })
    }
}

/// Everything that is wanted as files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted(Vec<Extract>);

impl Wanted {
    /// The image's archive, and paths of the image.
    pub fn new(image: Option<&Path>, paths: &[Extract]) -> Self {
        let image = image.map(|to| Extract {
            from: IMAGE.to_owned(),
            to: to.to_owned(),
            is_named: true,
        });
        Self(image.into_iter().chain(paths.iter().cloned()).collect())
    }

    /// What to ask for in `outputs`, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for wanted in &self.0 {
            if !names.contains(&wanted.from.as_str()) {
                names.push(&wanted.from);
            }
        }
        names
    }

    /// Refuses what would be saved over a file that the caller did not name.
    ///
    /// # Errors
    /// When there is one.
    pub fn check(&self) -> anyhow::Result<()> {
        let taken = self.0.iter().find(|one| !one.is_named && one.to.exists());
        taken.map_or(Ok(()), |Extract { from, to, .. }| {
            let to = to.display();
            bail!("{to} is here already; to write over it: --extract {from}={to}")
        })
    }

    /// Saves what the build has handed over.
    ///
    /// # Errors
    /// When something is not there, or cannot be fetched or written.
    pub async fn save(&self, tools: &mut Steady, status: &BuildStatus) -> anyhow::Result<()> {
        let fetched = self.fetched(tools, status).await?;
        let status = fetched.as_ref().unwrap_or(status);
        for wanted in &self.0 {
            let is_it =
                |output: &&OutputStatus| output.from == wanted.from && output.test.is_none();
            match status.outputs.iter().find(is_it) {
                Some(output) if output.digest.is_some() => {
                    save(tools, &status.build_id, output, &wanted.to).await?;
                    show::note(&format!("{} is in {}", wanted.from, wanted.to.display()));
                }
                Some(OutputStatus {
                    missing: Some(why), ..
                }) => bail!("there is no {}: {why}", wanted.from),
                // It ended before it came to that.
                _ => {}
            }
        }
        Ok(())
    }
}

impl Wanted {
    /// The status once more, when what a server in this process fetches from elsewhere is here.
    async fn fetched(
        &self,
        tools: &mut Steady,
        status: &BuildStatus,
    ) -> anyhow::Result<Option<BuildStatus>> {
        let waits = |status: &BuildStatus| {
            let mut outputs = status.outputs.iter();
            outputs.any(|output| output.is_there() && output.path.is_none())
        };
        if self.0.is_empty() || tools.remote().is_some() || !waits(status) {
            return Ok(None);
        }
        let deadline = Instant::now() + FETCHED_WITHIN;
        loop {
            let asked = arguments(json!({"build_id": status.build_id, "wait": 0}));
            let told: StatusAnswer = read(&tools.call("status", &asked).await?)?;
            match told.builds.into_iter().next() {
                Some(status) if waits(&status) && Instant::now() < deadline => {}
                told => return Ok(told),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn save(
    tools: &mut Steady,
    id: &str,
    output: &OutputStatus,
    to: &Path,
) -> anyhow::Result<()> {
    let cannot = || format!("{} cannot be written", to.display());
    let near = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Beside it first: what was there before stays until the new one is whole.
    let mut part = NamedTempFile::new_in(near).with_context(cannot)?;
    let mut copy = Hashing::new(part.as_file_mut());
    match (&output.path, tools.remote()) {
        (Some(path), _) => {
            let mut file = File::open(path).with_context(|| format!("{path} cannot be read"))?;
            io::copy(&mut file, &mut copy).with_context(cannot)?;
        }
        (None, Some(remote)) => remote.download(id, &output.name, &mut copy).await?,
        (None, None) => bail!(
            "the output {} of {id} cannot be had at the moment; nomad-build status {id} says where it is",
            output.name
        ),
    }
    if Some(copy.finish().0.to_string()) != output.digest {
        bail!("the output {} of {id} did not come whole", output.name);
    }
    let mode = match output.executable {
        Some(true) => 0o755,
        _ => 0o644,
    };
    fs::set_permissions(part.path(), Permissions::from_mode(mode)).with_context(cannot)?;
    part.persist(to).with_context(cannot)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_and_where() {
        let read = |text: &str| {
            text.parse::<Extract>()
                .map(|wanted| (wanted.from, wanted.to))
        };
        let is = |from: &str, to: &str| Ok((from.to_owned(), PathBuf::from(to)));
        assert_eq!(read("/bin/app=out/app"), is("/bin/app", "out/app"));
        assert_eq!(read("/bin/app"), is("/bin/app", "app"));
        assert_eq!(read("/a=b=c"), is("/a", "b=c"));
        for wrong in ["app", "/", "/x=", "=x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let path: Extract = "/a".parse().unwrap();
        let wanted = Wanted::new(Some(Path::new("i.tar")), &[path.clone(), path]);
        assert_eq!(wanted.names(), ["image", "/a"]);
        assert!(wanted.check().is_ok());
    }

    #[test]
    fn nothing_is_written_over_that_was_not_named() {
        let check = |path: &str| Wanted::new(None, &[path.parse().unwrap()]).check();
        let refused = check("/app/Cargo.toml").unwrap_err().to_string();
        assert!(
            refused.contains("--extract /app/Cargo.toml=Cargo.toml"),
            "{refused}"
        );
        assert!(check("/app/Cargo.toml=Cargo.toml").is_ok());
    }
}
