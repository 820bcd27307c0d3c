//! What a `path`, a `context` or `files` holds, snapshotted before a build is accepted.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::backend::Staged;
use crate::build::Plan;
use crate::build::request::FileRequest;
use crate::build::validate::{Base, Valid};
use crate::config::Config;
use crate::containerfile;
use crate::context::{self, ContextFile, Extent, Limits, Snapshot, SnapshotError};
use crate::runner::source::context_files;
use crate::schema::ArgFault;
use crate::schema::error_code::ErrorCode;

use super::ToolError;

/// The directory and files of a request, as one tree.
pub struct Tree {
    /// The directory; `None` when there are only files.
    pub dir: Option<PathBuf>,
    /// Of the arguments, the one that names it.
    argument: &'static str,
    files: Vec<ContextFile>,
    extent: Extent,
    /// Below the context.
    containerfile: Option<String>,
    limits: Limits,
}

impl Tree {
    /// The tree of a request that names no repository; `upload` is the root of the one that it names.
    ///
    /// # Errors
    /// When the directory is not allowed, or is none.
    pub fn of(valid: &Valid, config: &Config, upload: Option<&Path>) -> Result<Self, ToolError> {
        let plan = valid.plan();
        let subdir = plan.snapshot_below();
        let extent = match subdir {
            Some(_) => Extent::default(),
            None => extent(plan),
        };
        let dir = match &valid.base {
            Base::Path(path) => Some(directory(path, subdir, config)?),
            Base::Context(_) => upload.map(|root| below_root(root, subdir)).transpose()?,
            _ => None,
        };
        let files = below(&valid.files, subdir)?;
        paths(&files, &valid.files)?;
        if let Some(dir) = &dir
            && !extent.context.is_empty()
            && !holds(&files, &extent.context)
        {
            below_root(dir, Some(&extent.context))?;
        }
        contexts(plan, dir.as_deref(), &files)?;
        let profile = config.profile(&plan.profile);
        let limits = profile.map_or_else(|| config.limits.clone(), |profile| profile.limits);
        let argument = match &valid.base {
            Base::Path(_) => "source.path",
            Base::Context(_) => "source.context",
            _ => "source.files",
        };
        Ok(Self {
            dir,
            argument,
            files,
            extent,
            containerfile: plan.containerfile.clone(),
            limits: Limits {
                bytes: limits.context_mb << 20,
                entries: limits.context_entries,
            },
        })
    }

    /// Writes the tree as a tar. Blocks.
    ///
    /// # Errors
    /// Every fault of the tree.
    pub fn write(&self, out: impl Write) -> Result<Snapshot, ToolError> {
        let snapshot = match &self.dir {
            Some(dir) => context::snapshot_dir(
                dir,
                &self.extent,
                self.containerfile.as_deref(),
                &self.files,
                self.limits,
                out,
            ),
            None => context::snapshot_files(&self.files, self.limits, out),
        };
        snapshot.map_err(|error| refused(&error, self.argument))
    }

    /// Writes the tree into a file of the staging directory; returns it and the digest of the tar.
    /// Blocks.
    ///
    /// # Errors
    /// Every fault of the tree, or that the file cannot be written.
    pub fn stage(&self, staging: &Path, name: &str) -> Result<(Staged, String), ToolError> {
        let staged =
            Staged::create(staging, &format!("context-{name}.tar")).map_err(ToolError::internal)?;
        let mut out = BufWriter::with_capacity(1 << 20, staged.file());
        let digest = self.write(&mut out)?.digest;
        out.flush().map_err(ToolError::internal)?;
        drop(out);
        Ok((staged, digest))
    }

    /// Text of the Containerfile, one byte more than it may have at the most.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> io::Result<String> {
        if let Some(file) = self.files.iter().find(|file| file.path == path) {
            return Ok(file.text.clone());
        }
        match &self.dir {
            Some(dir) => context::read_file(dir, path, containerfile::MAX_BYTES + 1)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Where the Containerfile is, if it is there.
    pub fn containerfile(&self, snapshot: &Snapshot) -> Option<String> {
        let given = |name: &str| {
            let path = self.extent.in_context(name);
            let is_there = self.files.iter().any(|file| file.path == path);
            is_there.then_some(path)
        };
        snapshot
            .control
            .containerfile
            .clone()
            .or_else(|| match &self.containerfile {
                Some(name) => given(name),
                None => given("Containerfile").or_else(|| given("Dockerfile")),
            })
    }
}

fn directory(path: &str, subdir: Option<&str>, config: &Config) -> Result<PathBuf, ToolError> {
    let unreachable = |problem: String| {
        ToolError::one(
            ArgFault::new(ErrorCode::PathNotReachable, "source.path", problem)
                .expecting("an existing directory that this server can read")
                .got(path),
        )
    };
    let root = fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => unreachable("there is no such directory".into()),
        kind => unreachable(format!("it cannot be read: {kind}")),
    })?;
    if !config.local.paths.is_empty()
        && !config
            .local
            .paths
            .iter()
            .any(|allowed| root.starts_with(allowed))
    {
        return Err(ToolError::one(
            ArgFault::new(
                ErrorCode::NotAllowed,
                "source.path",
                "the operator does not allow this directory",
            )
            .got(path),
        ));
    }
    if root == Path::new("/") {
        return Err(unreachable("it is the root of the file system".into()));
    }
    if !root.is_dir() {
        return Err(unreachable("it is not a directory".into()));
    }
    below_root(&root, subdir)
}

/// A directory below a root, by links that stay below it.
fn below_root(root: &Path, subdir: Option<&str>) -> Result<PathBuf, ToolError> {
    let Some(subdir) = subdir else {
        return Ok(root.to_owned());
    };
    context::directory_below(root, subdir).map_err(|_| {
        // The same for everything: what is outside is nobody's business.
        ToolError::one(
            ArgFault::new(
                ErrorCode::InvalidArgument,
                "source.subdir",
                "it is not there, leads out of the source, or is not a directory",
            )
            .expecting("a directory below the source")
            .got(subdir),
        )
    })
}

/// The files with paths relative to `subdir`.
fn below(files: &[FileRequest], subdir: Option<&str>) -> Result<Vec<ContextFile>, ToolError> {
    let mut files = context_files(files);
    let Some(subdir) = subdir else {
        return Ok(files);
    };
    let mut faults = Vec::new();
    for (index, file) in files.iter_mut().enumerate() {
        match file
            .path
            .strip_prefix(subdir)
            .and_then(|rest| rest.strip_prefix('/'))
        {
            Some(rest) => file.path = rest.to_owned(),
            None => faults.push(
                ArgFault::new(
                    ErrorCode::InvalidArgument,
                    format!("source.files[{index}].path"),
                    "it is not below subdir, so the build would not see it",
                )
                .expecting(format!("a path that begins with {subdir}/"))
                .got(&file.path),
            ),
        }
    }
    if faults.is_empty() {
        Ok(files)
    } else {
        Err(ToolError::all(faults))
    }
}

/// The context, and what has a name beside it.
fn extent(plan: &Plan) -> Extent {
    let named = plan.context_directories();
    Extent {
        context: plan.subdir.clone().unwrap_or_default(),
        named: named.map(|(_, directory)| directory.to_owned()).collect(),
    }
}

/// Refuses named build contexts that are not there.
fn contexts(plan: &Plan, dir: Option<&Path>, files: &[ContextFile]) -> Result<(), ToolError> {
    let is_there = |directory: &str| {
        holds(files, directory)
            || dir.is_some_and(|dir| context::directory_below(dir, directory).is_ok())
    };
    let missing = plan.context_directories();
    let missing: Vec<ArgFault> = missing
        .filter(|(_, directory)| !is_there(directory))
        .map(|(name, directory)| {
            let index = (plan.build_contexts.iter()).position(|(other, _)| other == name);
            let argument = format!("build_contexts[{}]", index.unwrap_or_default());
            let problem = "it is not there, leads out of the source, or is not a directory";
            ArgFault::new(ErrorCode::InvalidArgument, argument, problem)
                .expecting("NAME=DIRECTORY below the root of the source")
                .got(&format!("{name}={directory}"))
        })
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(ToolError::all(missing)),
    }
}

/// Whether given files lie in a directory.
fn holds(files: &[ContextFile], directory: &str) -> bool {
    let mut files = files.iter();
    files.any(|file| Path::new(&file.path).starts_with(directory))
}

/// Faults in the paths of the files, told by their place among the arguments.
fn paths(files: &[ContextFile], given: &[FileRequest]) -> Result<(), ToolError> {
    let faults = context::check_files(files);
    if faults.is_empty() {
        return Ok(());
    }
    let place = |path: &str| {
        files
            .iter()
            .rposition(|file| file.path == path)
            .unwrap_or(0)
    };
    Err(ToolError::all(
        faults
            .iter()
            .map(|one| {
                let index = place(&one.path);
                let got = given.get(index).map_or("", |file| file.path.as_str());
                ArgFault::new(
                    ErrorCode::InvalidArgument,
                    format!("source.files[{index}].path"),
                    one.fault.to_string(),
                )
                .expecting("a path below the root of the source")
                .got(got)
            })
            .collect(),
    ))
}

fn refused(error: &SnapshotError, argument: &str) -> ToolError {
    let invalid = |problem: String| ArgFault::new(ErrorCode::InvalidArgument, argument, problem);
    match error {
        SnapshotError::Root { .. } => ToolError::one(ArgFault::new(
            ErrorCode::PathNotReachable,
            argument,
            crate::build::clean::short(&error.to_string(), 300),
        )),
        SnapshotError::Faults(faults) => {
            let mut all: Vec<ArgFault> = faults
                .named
                .iter()
                .map(|fault| invalid(crate::build::clean::short(&fault.to_string(), 400)))
                .collect();
            if faults.more > 0 {
                all.push(invalid(format!("and {} more", faults.more)));
            }
            ToolError::all(all)
        }
        SnapshotError::TooBig { .. } => {
            ToolError::one(invalid(crate::build::clean::short(&error.to_string(), 600)))
        }
        SnapshotError::Output(_) => ToolError::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_subdir_tells_nothing_of_what_is_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        symlink("/", root.join("out")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("a", root.join("in")).unwrap();
        let below = |subdir: &str| below_root(&root, Some(subdir));
        assert_eq!(below("in/b").unwrap(), root.join("a/b"));
        let told = |subdir: &str| {
            let error = below(subdir).unwrap_err().to_string();
            error.replace(subdir, "SUBDIR")
        };
        let none = told("none");
        for subdir in ["out/etc", "out/etc/passwd", "out/nowhere", "up", "file"] {
            assert_eq!(told(subdir), none, "{subdir}");
        }
    }
}
