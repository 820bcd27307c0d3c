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
use crate::build::output::{IMAGE, OutputKind, OutputStatus};
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

impl Extract {
    async fn save(&self, tools: &mut Steady, status: &BuildStatus) -> anyhow::Result<()> {
        let is_it = |output: &&OutputStatus| output.from == self.from && output.test.is_none();
        match status.outputs.iter().find(is_it) {
            Some(output) if output.digest.is_some() => {
                let to = self.place(output.kind)?;
                save(tools, &status.build_id, output, &to).await?;
                show::note(&format!("{} is in {}", self.from, to.display()));
            }
            Some(OutputStatus {
                missing: Some(why), ..
            }) => bail!("there is no {}: {why}", self.from),
            // It ended before it came to that.
            _ => {}
        }
        Ok(())
    }

    /// Where it is saved: what turned out to be a directory comes as an archive, and is called so.
    fn place(&self, kind: Option<OutputKind>) -> anyhow::Result<PathBuf> {
        if self.is_named || kind != Some(OutputKind::Directory) {
            return Ok(self.to.clone());
        }
        let mut to = self.to.clone().into_os_string();
        to.push(".tar");
        let to = PathBuf::from(to);
        self.must_not_replace(&to)?;
        Ok(to)
    }

    fn must_not_replace(&self, to: &Path) -> anyhow::Result<()> {
        if to.exists() {
            let (from, to) = (&self.from, to.display());
            bail!("{to} is here already; to write over it: --extract {from}={to}");
        }
        Ok(())
    }
}

/// Where a file lies.
fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
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
        let mut all: Vec<Extract> = image.into_iter().collect();
        for path in paths {
            if !all.contains(path) {
                all.push(path.clone());
            }
        }
        Self(all)
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

    /// Refuses what would be saved over a file that the caller did not name, or where no file can be.
    ///
    /// # Errors
    /// When there is such a thing.
    pub fn check(&self) -> anyhow::Result<()> {
        for one in &self.0 {
            let (to, from) = (one.to.display(), &one.from);
            if one.to.is_dir() || one.to.as_os_str().as_encoded_bytes().ends_with(b"/") {
                bail!("{to} is a directory, and {from} is to become a file: name that");
            }
            if !one.is_named {
                one.must_not_replace(&one.to)?;
            }
            let near = directory_of(&one.to);
            if !near.is_dir() {
                bail!(
                    "{to} cannot be written: there is no directory {}",
                    near.display()
                );
            }
        }
        Ok(())
    }

    /// Saves what the build has handed over.
    ///
    /// # Errors
    /// When something is not there, or cannot be fetched or written.
    pub async fn save(&self, tools: &mut Steady, status: &BuildStatus) -> anyhow::Result<()> {
        let fetched = self.fetched(tools, status).await?;
        let status = fetched.as_ref().unwrap_or(status);
        let mut failed = None;
        for wanted in &self.0 {
            // One that cannot be saved does not keep the others from it.
            if let Err(error) = wanted.save(tools, status).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
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
    // Beside it first: what was there before stays until the new one is whole.
    let mut part = NamedTempFile::new_in(directory_of(to)).with_context(cannot)?;
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
        let refused = check("/app/src").unwrap_err().to_string();
        assert!(refused.contains("src is a directory"), "{refused}");
        assert!(check("/app/file=nowhere/file").is_err() && check("/app/file=new/").is_err());
    }

    #[test]
    fn a_directory_becomes_an_archive_unless_the_caller_says_how_it_is_called() {
        let place = |path: &str, kind| {
            let wanted: Extract = path.parse().unwrap();
            wanted.place(Some(kind)).unwrap()
        };
        for (path, kind, saved) in [
            ("/app", OutputKind::Directory, "app.tar"),
            ("/app=out", OutputKind::Directory, "out"),
            ("/root/.bashrc", OutputKind::File, ".bashrc"),
            ("/a b", OutputKind::File, "a b"),
        ] {
            assert_eq!(place(path, kind), PathBuf::from(saved), "{path}");
        }
    }
}
