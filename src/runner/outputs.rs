//! What a build hands over: taken out of the image or of a test's container, looked at, and laid ready.
//!
//! ```text
//! sandbox: buildah from ─▶ mount ─▶ runner collect ─▶ box/out/copies     may be anything
//! runner:  not followed, only regular files ─▶ hashed ─▶ WORK/outputs    told by Event::Output
//! job:     the same bytes? ─▶ the build's directory, or a registry
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::build::digest::Hashing;
use crate::build::output::{IMAGE, OutputKind, OutputStatus, file_name};
use crate::build::plan::PlanTest;
use crate::build::{Failure, Kind, Phase};
use crate::log::Event;
use crate::registry::Layout;

use super::collect::{Found, LIST, read_list};
use super::phases::{Job, Stop};
use super::process::Ended;
use super::sandbox::{Reach, Sandbox, Store};
use super::workdir::{open_untrusted, read_untrusted};

/// The container from which paths of the final image are taken.
const CONTAINER: &str = "outputs";
/// Bytes of a list at most.
const MAX_LIST: u64 = 64 * 1024;
/// Bytes of a JUnit file at most.
const MAX_REPORT: u64 = 16 << 20;

/// What has been laid ready so far, in this build.
#[derive(Debug, Default)]
pub struct Outputs(Mutex<Ready>);

#[derive(Debug, Default)]
struct Ready {
    names: Vec<String>,
    bytes: u64,
}

impl Outputs {
    /// Bytes that may still be handed over.
    fn left(&self, job: &Job<'_>) -> u64 {
        let ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        job.settings
            .limits
            .outputs_bytes
            .saturating_sub(ready.bytes)
    }

    /// Tells of what was found, whose bytes are in `file`, where nobody changes them any more: moved to where it is
    /// ready. The inner error says why there is none.
    fn take(
        &self,
        job: &Job<'_>,
        (from, test): (&str, Option<&str>),
        found: What,
        file: &Path,
    ) -> io::Result<Result<(), Problem>> {
        let (kind, executable) = match found {
            Ok(what) => what,
            Err(problem) => return Ok(Err(problem)),
        };
        let left = self.left(job);
        let mut opened = open_untrusted(file, u64::MAX)?.take(left.saturating_add(1));
        let mut hashing = Hashing::new(io::sink());
        tokio::task::block_in_place(|| io::copy(&mut opened, &mut hashing))?;
        let (digest, size) = hashing.finish();
        // The sandbox should not have let it become so large.
        if size > left {
            return Ok(Err(Problem::TooLarge(left)));
        }
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = ready.name(from, test, kind);
        fs::DirBuilder::new()
            .recursive(true)
            .create(job.work.outputs())?;
        fs::rename(file, job.work.outputs().join(&name))?;
        ready.bytes += size;
        let output = OutputStatus {
            kind: Some(kind),
            size_bytes: Some(size),
            digest: Some(digest.to_string()),
            executable: executable.then_some(true),
            ..OutputStatus::of(from, test, name)
        };
        job.reporter.event(Event::Output { output });
        Ok(Ok(()))
    }

    /// Tells that there is none.
    fn missing(&self, job: &Job<'_>, from: &str, test: &str, why: &str) {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = ready.name(from, Some(test), OutputKind::File);
        let output = OutputStatus {
            missing: Some(why.to_owned()),
            ..OutputStatus::of(from, Some(test), name)
        };
        job.reporter.event(Event::Output { output });
    }
}

impl Ready {
    /// A name of its own.
    fn name(&mut self, from: &str, test: Option<&str>, kind: OutputKind) -> String {
        let taken: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let name = file_name(from, test, kind, &taken);
        self.names.push(name.clone());
        name
    }
}

/// Lays the paths of the final image ready.
///
/// # Errors
/// When one is not there, or too large; or why the build stops.
pub async fn of_image(
    job: &Job<'_>,
    sandbox: &Sandbox<'_>,
    outputs: &Outputs,
    image: &str,
) -> Result<(), Stop> {
    let paths: Vec<&str> = job.plan.paths().collect();
    if paths.is_empty() {
        return Ok(());
    }
    job.reporter
        .say(Phase::Build, "taking the outputs out of the image");
    let mut from = sandbox.buildah(Store::Own);
    from.extend(
        [
            "from",
            "--quiet",
            "--pull-never",
            "--name",
            CONTAINER,
            image,
        ]
        .map(String::from),
    );
    let copies = copies(job, sandbox, outputs, vec![from], CONTAINER, &paths).await?;
    let copies =
        copies.map_err(|why| Stop::internal(format!("the outputs cannot be taken: {why}")))?;
    for (index, (path, found)) in paths.iter().zip(copies.list).enumerate() {
        let file = copies.directory.join(index.to_string());
        let found = found.kind(outputs.left(job));
        let taken = outputs.take(job, (path, None), found, &file);
        let taken = taken.map_err(Stop::internal)?;
        taken.map_err(|problem| Stop::failed(problem.failure(path)))?;
    }
    Ok(())
}

/// Lays what a test left ready, and reads its report; a test that left nothing has not failed for that. Returns the
/// text of the report as it is, or why there is none, where one was asked for.
///
/// # Errors
/// Why the build stops.
pub async fn of_test(
    job: &Job<'_>,
    sandbox: &Sandbox<'_>,
    outputs: &Outputs,
    test: &PlanTest,
    container: &str,
) -> Result<Option<Result<String, String>>, Stop> {
    let report = test.report.as_deref();
    // The report first: it does not count, and is told even where the outputs are too large.
    let outputs_of = test.outputs.iter().map(String::as_str);
    let paths: Vec<&str> = report.into_iter().chain(outputs_of).collect();
    if paths.is_empty() {
        return Ok(None);
    }
    let missing = |from: &str, why: &str| outputs.missing(job, from, &test.name, why);
    let copies = match copies(job, sandbox, outputs, Vec::new(), container, &paths).await? {
        Ok(copies) => copies,
        Err(_) => {
            let why = "its container cannot be read";
            test.outputs.iter().for_each(|path| missing(path, why));
            return Ok(report.map(|_| Err(why.to_owned())));
        }
    };
    let mut left = None;
    for (index, (path, found)) in paths.iter().zip(copies.list).enumerate() {
        let file = copies.directory.join(index.to_string());
        let found = found.kind(outputs.left(job));
        if index == 0 && report.is_some() {
            left = Some(read_report(found, &file));
            continue;
        }
        let taken = outputs.take(job, (path, Some(&test.name)), found, &file);
        if let Err(problem) = taken.map_err(Stop::internal)? {
            missing(path, &problem.words());
        }
    }
    Ok(left)
}

fn read_report(found: What, file: &Path) -> Result<String, String> {
    match found {
        Ok((OutputKind::File, _)) => match read_untrusted(file, MAX_REPORT) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(_) => Err(format!("it has more than {} MiB", MAX_REPORT >> 20)),
        },
        Ok(_) => Err("it is no file".into()),
        Err(problem) => Err(problem.words()),
    }
}

/// Lays the packed image ready, as an OCI archive: an image layout in a tar archive (containers-transports(5)).
///
/// # Errors
/// When it is too large, or cannot be written.
pub async fn of_packed(
    job: &Job<'_>,
    outputs: &Outputs,
    phase: Phase,
    image: &str,
) -> Result<(), Stop> {
    let (layout, limit) = (job.work.layout(), outputs.left(job));
    let name = match job.plan.tags.first() {
        Some(tag) => tag.clone(),
        None => format!("localhost/{}:latest", job.plan.build_id),
    };
    let file = job.work.root().join("image.tar");
    let (to, id) = (file.clone(), image.to_owned());
    let archived = tokio::task::spawn_blocking(move || {
        let layout = Layout::open(&layout, u64::MAX).map_err(io::Error::other)?;
        if layout.config_digest().to_string() != id {
            return Err(io::Error::other(
                "the packed image is not the one that was tested",
            ));
        }
        if layout.total_size() > limit {
            return Ok(Err(Problem::TooLarge(limit)));
        }
        layout.archive(&name, &mut File::create(&to)?)?;
        Ok(Ok((OutputKind::Image, false)))
    });
    let found = archived.await.map_err(Stop::internal)?;
    let found = found.map_err(Stop::internal)?;
    let taken = outputs.take(job, (IMAGE, None), found, &file);
    taken.map_err(Stop::internal)?.map_err(|problem| {
        Stop::failed(Failure {
            phase: Some(phase),
            ..problem.failure("the image")
        })
    })
}

/// What the sandbox has copied.
struct Copies {
    directory: PathBuf,
    list: Vec<Found>,
}

/// Copies paths out of a container, after `commands`; the inner error says why nothing came.
async fn copies(
    job: &Job<'_>,
    sandbox: &Sandbox<'_>,
    outputs: &Outputs,
    mut commands: Vec<Vec<String>>,
    container: &str,
    paths: &[&str],
) -> Result<Result<Copies, String>, Stop> {
    let directory = job.work.boxed("out").join("copies").join(container);
    let mut collect = vec![sandbox.host.own_binary.display().to_string()];
    collect.extend(["runner", "collect", "--into"].map(String::from));
    collect.push(directory.display().to_string());
    // What is ready is counted once more outside: a report may need the rest.
    let limit = outputs.left(job).saturating_add(MAX_REPORT);
    collect.extend(["--limit".to_owned(), limit.to_string()]);
    for path in paths {
        collect.push(format!("--path={path}"));
    }
    collect.push("--".into());
    collect.extend(sandbox.buildah(Store::Own));
    collect.extend(["mount", container].map(String::from));
    commands.push(collect);
    let reach = Reach {
        own_binary: true,
        ..Reach::default()
    };
    let started = sandbox.start(commands, reach).map_err(Stop::internal)?;
    let phase = match container {
        CONTAINER => Phase::Build,
        _ => Phase::Test,
    };
    let before = job.cgroup.counters();
    match started.capture(&job.bounds, 4096).await {
        (Ended::Exited(0), _) => {}
        (Ended::Exited(_), _) if job.killed_by_a_stranger(sandbox, before, None) => {
            return Err(Stop::Interrupted);
        }
        (Ended::Exited(_), said) => {
            // A limit that was reached explains what no command has done.
            let failure = Failure::new(phase, Kind::BuildError, said.clone());
            let explained = job.explained(failure.clone(), before, None);
            return match explained == failure {
                true => Ok(Err(said)),
                false => Err(Stop::failed(explained)),
            };
        }
        (Ended::Cancelled, _) => return Err(Stop::Interrupted),
        (Ended::OutOfTime, _) => return Err(job.out_of_time(phase)),
    }
    let list = read_untrusted(&directory.join(LIST), MAX_LIST);
    let list = list.and_then(|bytes| read_list(&mut bytes.as_slice()));
    Ok(match list {
        Ok(list) if list.len() == paths.len() => Ok(Copies { directory, list }),
        Ok(_) => Err("the list of copies has another length".into()),
        Err(error) => Err(error.to_string()),
    })
}

/// What was found, and whether it is executable; or why there is nothing.
type What = Result<(OutputKind, bool), Problem>;

/// Why there is no output.
#[derive(Debug, Clone, Copy)]
enum Problem {
    Nothing,
    Other,
    Unreadable,
    TooLarge(u64),
}

impl Found {
    fn kind(self, limit: u64) -> What {
        match self {
            Found::File { executable } => Ok((OutputKind::File, executable)),
            Found::Directory => Ok((OutputKind::Directory, false)),
            Found::Nothing => Err(Problem::Nothing),
            Found::Other => Err(Problem::Other),
            Found::Unreadable => Err(Problem::Unreadable),
            Found::TooLarge => Err(Problem::TooLarge(limit)),
        }
    }
}

impl Problem {
    fn words(self) -> String {
        match self {
            Problem::Nothing => "there is nothing at this path".into(),
            Problem::Unreadable => "it cannot be read as a whole".into(),
            Problem::Other => "it is neither a file nor a directory".into(),
            Problem::TooLarge(limit) => format!(
                "with it the outputs would have more than their limit; {} MiB are left of it",
                limit >> 20
            ),
        }
    }

    fn failure(self, path: &str) -> Failure {
        let message = format!("{path} cannot be handed over: {}", self.words());
        match self {
            Problem::Nothing | Problem::Other | Problem::Unreadable => {
                Failure::new(Phase::Build, Kind::OutputMissing, message)
                    .with_hint("Name a path that the final image has, in outputs.")
            }
            Problem::TooLarge(_) => Failure::new(Phase::Build, Kind::LimitReached, message)
                .with_hint("Ask for less in outputs, or choose a profile with a higher limit."),
        }
    }
}

/// Copies an output from where it lies ready to `to`, which is there only as a whole. Whoever owns `from` may have
/// changed it: only the bytes that were told come through.
///
/// # Errors
/// When it is another, or cannot be read or written; then there is nothing at `to`.
pub fn hand_over(from: &Path, output: &OutputStatus, to: &Path) -> io::Result<()> {
    let size = output.size_bytes.unwrap_or(0);
    let mut source = open_untrusted(from, u64::MAX)?.take(size.saturating_add(1));
    let near = to.parent().unwrap_or(to);
    let mut part = tempfile::Builder::new()
        .prefix(".part-")
        .tempfile_in(near)?;
    let mut copy = Hashing::new(part.as_file_mut());
    io::copy(&mut source, &mut copy)?;
    let (digest, found) = copy.finish();
    if found != size || Some(digest.to_string()) != output.digest {
        return Err(io::Error::other("it has changed since it was made"));
    }
    if output.executable == Some(true) {
        let mode = fs::Permissions::from_mode(0o700);
        part.as_file().set_permissions(mode)?;
    }
    part.as_file().sync_all()?;
    part.persist(to)?;
    Ok(())
}

/// Whether an output is in this directory, by its size.
pub fn is_whole(dir: &Path, output: &OutputStatus) -> bool {
    let file = fs::metadata(dir.join(&output.name));
    file.is_ok_and(|file| Some(file.len()) == output.size_bytes)
}
