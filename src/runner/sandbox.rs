//! The one place where the command line of foreign code is built.
//!
//! ```text
//! nomad-build runner unshare         user namespace of the unprivileged user, PID and mount namespaces;
//!                                    dies with the runner, and everything below it with its first process:
//!   nomad-build runner enclose       makes the network, starts pasta, waits
//!     nomad-build runner enter       mount namespace by allow-list, limits, filter, clean environment
//!       buildah build | run | push
//! ```

use std::fs;
use std::io::{self, PipeWriter};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::build::Failure;
use crate::diagnosis::{BuildahEnd, points_at_store};

use super::cache::{Base, Layers};
use super::enclose::{Contents, Enclosure, Watch};
use super::enter::{self, Bind, Spec};
use super::network;
use super::phases::Stop;
use super::probe::Host;
use super::process::Started;
use super::proven;
use super::settings::{Network, Settings};
use super::store;
use super::usage::Ceiling;
use super::userns;
use super::workdir::{WorkDir, write_json};

/// Search path of everything the runner starts.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variable by which the processes of a build are known.
pub const BUILD_ID: &str = "NOMAD_BUILD_ID";

/// System files that Buildah and the runtime need; nothing else of the host is there.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/sys",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/containers",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl",
    "/etc/subgid",
    "/etc/subuid",
];

/// Buildah's processes live shortly and hold little: that they collect garbage less often takes a tenth off a
/// build in which nothing changed, and the soft limit bounds what it costs (runtime/extern.go). Commands of
/// RUN and tests have the environment of their image.
const GARBAGE: [(&str, &str); 2] = [("GOGC", "400"), ("GOMEMLIMIT", "256MiB")];

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The secrets that a command in the sandbox may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Secrets<'a> {
    /// None.
    #[default]
    None,
    /// Those of `RUN --mount=type=secret`, by the pipes from which Buildah reads them.
    OfRun,
    /// Those of one test, by their names.
    OfTest(&'a [String]),
}

/// What a command in the sandbox may use besides the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reach<'a> {
    /// The sources; what is written to them reaches nobody else.
    pub sources: Readable,
    /// Secrets.
    pub secrets: Secrets<'a>,
    /// The layers of the build's scope, to write.
    pub layers: bool,
    /// The network of the profile; without it there is none, unless builds share the host's.
    pub network: bool,
    /// This program, to run a part of it in there.
    pub own_binary: bool,
}

/// How the sources are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Readable {
    /// They are not.
    #[default]
    No,
    /// To be read.
    Yes,
    /// To be read, and opened as if they could be written to: so Buildah from 1.39 on opens a file that a step binds
    /// (internal/volumes/bind_linux.go, `bindFromChroot`).
    AsIfWritable,
}

/// Where Buildah writes images and containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In the build's own directory, which goes with the build.
    Own,
    /// In the store of its scope, which stays.
    Scope,
}

/// Builds the command lines of one build.
#[derive(Debug, Clone)]
pub struct Sandbox<'a> {
    /// The operator's settings.
    pub settings: &'a Settings,
    /// What the probe found.
    pub host: &'a Host,
    /// The build's directory.
    pub work: &'a WorkDir,
    /// The layers it may use.
    pub layers: Option<&'a Layers>,
    /// The base images it may use.
    pub bases: &'a [Base],
}

impl Sandbox<'_> {
    /// Buildah's global options: one store to write, all others read-only.
    pub fn buildah(&self, store: Store) -> Vec<String> {
        let mut argv = vec![self.host.buildah.clone()];
        let mut readable = vec![self.host.cache(&self.settings.cache).images()];
        let mut root = self.work.boxed("s");
        if let Some(layers) = self.layers {
            readable.extend(layers.shared());
            match store {
                Store::Own => readable.push(layers.store()),
                Store::Scope => root = layers.store(),
            }
        }
        argv.extend(storage(&root, &self.work.boxed("r")));
        for other in readable {
            argv.push("--storage-opt".into());
            argv.push(format!("additionalimagestore={}", other.display()));
        }
        argv
    }

    /// Where Buildah makes containers.
    pub fn stores(&self) -> Vec<PathBuf> {
        let scope = self.layers.map(Layers::store);
        scope.into_iter().chain([self.work.boxed("s")]).collect()
    }

    /// Options of `build` and `run` that isolate foreign code.
    pub fn isolation(&self) -> Vec<String> {
        let mut argv: Vec<String> = self.host.isolation.clone();
        // The network namespace lies around the whole of Buildah.
        argv.push("--network=host".into());
        argv
    }

    /// Whether Buildah itself carries what foreign code prints.
    pub fn is_carried(&self) -> bool {
        self.host.isolation.iter().any(|word| word == "chroot")
    }

    /// Option of `build` and `from` that bounds the size of a file of foreign code; Buildah's own
    /// files are not bound by it.
    pub fn file_limit(&self) -> String {
        let bytes = self.settings.limits.file_bytes;
        format!("--ulimit=fsize={bytes}:{bytes}")
    }

    /// Runs `commands` in order inside the sandbox.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, commands: Vec<Vec<String>>, reach: Reach<'_>) -> io::Result<Started> {
        let own_binary = &self.host.own_binary;
        let opening = Opening::begin(self.settings, own_binary, self.work, reach.network)?;
        self.pour(opening, commands, reach)
    }

    /// The same in a sandbox whose making has begun before; its network is as it was begun. One that was
    /// killed meanwhile is made anew.
    ///
    /// # Errors
    /// When what is in it cannot be told.
    pub fn fill(
        &self,
        mut opening: Opening,
        commands: Vec<Vec<String>>,
        reach: Reach<'_>,
    ) -> io::Result<Started> {
        if opening.started.is_running() {
            self.pour(opening, commands, reach)
        } else {
            self.start(commands, reach)
        }
    }

    fn pour(
        &self,
        opening: Opening,
        commands: Vec<Vec<String>>,
        reach: Reach<'_>,
    ) -> io::Result<Started> {
        write_json(&contents_file(self.work), &self.contents(commands, reach)?)?;
        enter::open(opening.gate)?;
        Ok(opening.started)
    }

    fn contents(&self, commands: Vec<Vec<String>>, reach: Reach<'_>) -> io::Result<Contents> {
        let inside = Spec {
            root: self.work.sandbox_root(),
            binds: self.binds(reach)?,
            empty: vec![self.host.home.clone()],
            memory: (reach.secrets == Secrets::OfRun)
                .then(|| self.work.copies_inside())
                .into_iter()
                .collect(),
            cwd: self.work.boxed("tmp"),
            env: self.environment(),
            processes: self.settings.limits.processes,
            no_new_privileges: self.settings.no_new_privileges,
            reached: reached(self.work),
            commands,
        };
        Ok(Contents {
            watch: self.watch(reach),
            // runc's own choice in a user namespace (main.go; XDG_RUNTIME_DIR is set by `environment`).
            containers: self.work.boxed("run").join("runc"),
            inside,
        })
    }

    /// What may be written to, and how much of it.
    fn watch(&self, reach: Reach<'_>) -> Watch {
        let written = self.layers.filter(|_| reach.layers).map(Layers::store);
        Watch {
            roots: [
                self.work.root().join("box"),
                self.work.laid_over(),
                self.work.spent(),
            ]
            .into_iter()
            .chain(written)
            .collect(),
            ceiling: Ceiling::from(&self.settings.limits),
            report: self.work.over_file(),
        }
    }

    /// Why the build stops when Buildah has failed; what points at a damaged store is told apart.
    pub fn stop(&self, end: &BuildahEnd<'_>, failure: Failure) -> Stop {
        let stores: Vec<String> = self
            .layers
            .iter()
            .flat_map(|layers| [Some(layers.store()), layers.shared()])
            .flatten()
            .chain([self.host.cache(&self.settings.cache).images()])
            .map(|store| store.display().to_string())
            .collect();
        let bases: Vec<&str> = (self.bases.iter())
            .map(|base| base.reference.as_str())
            .collect();
        if self.layers.is_some() && points_at_store(end, &failure, &stores, &bases) {
            Stop::Damaged(Box::new(failure))
        } else {
            Stop::failed(failure)
        }
    }

    /// Whether the last command of the sandbox that ran last was started.
    pub fn was_reached(&self) -> bool {
        reached(self.work).exists()
    }

    /// Whether the sandbox that ran last did not end by itself: it, or something around it, was killed.
    pub fn was_killed(&self) -> bool {
        running(self.work).exists()
    }

    fn binds(&self, reach: Reach<'_>) -> io::Result<Vec<Bind>> {
        let read = |path: PathBuf, optional| Bind {
            path,
            source: None,
            writable: false,
            over: None,
            optional,
        };
        let mut binds: Vec<Bind> = SYSTEM.iter().map(|path| read(path.into(), true)).collect();
        binds.retain(|bind| bind.path != Path::new("/sys"));
        // The kernel refuses to remount /sys; the user namespace cannot write to it anyway.
        binds.push(Bind {
            writable: true,
            ..read("/sys".into(), true)
        });
        binds.push(Bind {
            source: self.resolver()?,
            ..read(RESOLV_CONF.into(), true)
        });
        if !self.host.buildah.starts_with("/usr/") {
            binds.push(read(PathBuf::from(&self.host.buildah), false));
        }
        if reach.own_binary {
            binds.push(read(self.host.own_binary.clone(), false));
        }
        binds.extend(self.images()?);
        if reach.sources != Readable::No {
            binds.push(Bind {
                over: (reach.sources == Readable::AsIfWritable).then(|| self.work.laid_over()),
                ..read(self.work.src(), false)
            });
        }
        binds.extend(
            self.secrets(reach.secrets)
                .into_iter()
                .map(|(source, path)| Bind {
                    source: Some(source),
                    ..read(path, false)
                }),
        );
        binds.push(Bind {
            writable: true,
            ..read(self.work.root().join("box"), false)
        });
        if let Some(layers) = self.layers {
            binds.extend(layers.shared().map(|dir| read(dir, false)));
            binds.push(Bind {
                writable: reach.layers,
                ..read(layers.store(), false)
            });
            // Buildah 1.28 and the later ones look for cache mounts at different names.
            for name in ["buildah-cache", "buildah-cache-0"]
                .into_iter()
                .filter(|_| reach.layers)
            {
                binds.push(Bind {
                    source: Some(layers.mounts()),
                    writable: true,
                    ..read(self.work.boxed("tmp").join(name), false)
                });
            }
        }
        Ok(binds)
    }

    /// Where the secrets are, and where the sandbox has them.
    fn secrets(&self, secrets: Secrets<'_>) -> Vec<(PathBuf, PathBuf)> {
        let inside = self.work.secrets_inside();
        match secrets {
            Secrets::None => Vec::new(),
            Secrets::OfRun => (self.work.handed().into_iter())
                .map(|place| (place.pipes, inside.clone()))
                .collect(),
            Secrets::OfTest(names) => (self.work.test_secrets().into_iter())
                .flat_map(|dir| names.iter().map(move |name| dir.join(name)).zip(names))
                .map(|(source, name)| (source, inside.join(name)))
                .collect(),
        }
    }

    /// Of the store of base images, what the build may use.
    fn images(&self) -> io::Result<Vec<Bind>> {
        let store = self.host.cache(&self.settings.cache).images();
        let part = proven::part(&store, &self.bases.iter().map(Base::known_by).collect())?;
        let index = self.work.root().join("images.json");
        fs::write(&index, part.index)?;
        let bind = |path: &Path, source| Bind {
            path: store.join(path),
            source,
            writable: false,
            over: None,
            optional: true,
        };
        let mut binds: Vec<Bind> = part.paths.iter().map(|path| bind(path, None)).collect();
        binds.push(bind(Path::new(store::INDEX), Some(index)));
        Ok(binds)
    }

    /// The file by which names are found in the sandbox, where it is not the host's.
    fn resolver(&self) -> io::Result<Option<PathBuf>> {
        if self.settings.network != Network::Egress {
            return Ok(None);
        }
        let host = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let file = self.work.root().join("resolv.conf");
        fs::write(&file, network::resolver(&host))?;
        Ok(Some(file))
    }

    fn environment(&self) -> Vec<(String, String)> {
        let mut inside = environment(&self.work.boxed(""));
        inside.extend(GARBAGE.map(|(name, value)| (name.into(), value.into())));
        for (name, value) in &mut inside {
            // Made anew for each command: what one writes there, no later one takes for its configuration.
            if name == "HOME" {
                *value = self.host.home.display().to_string();
            }
        }
        inside
    }
}

/// The environment of everything that runs for a build; `scratch` holds home, tmp and run.
///
/// The build's id goes with it: by it whoever cleans up knows the processes of a build.
pub fn environment(scratch: &Path) -> Vec<(String, String)> {
    let below = |name: &str| scratch.join(name).display().to_string();
    let id = std::env::var(BUILD_ID).ok().map(|id| (BUILD_ID.into(), id));
    let fixed = [
        ("PATH".into(), PATH.into()),
        ("HOME".into(), below("home")),
        ("TMPDIR".into(), below("tmp")),
        ("XDG_RUNTIME_DIR".into(), below("run")),
        ("LC_ALL".into(), "C.UTF-8".into()),
    ];
    fixed.into_iter().chain(id).collect()
}

/// Buildah's options for a storage of its own.
pub fn storage(root: &Path, runroot: &Path) -> Vec<String> {
    vec![
        "--storage-driver".into(),
        "overlay".into(),
        "--root".into(),
        root.display().to_string(),
        "--runroot".into(),
        runroot.display().to_string(),
    ]
}

/// A sandbox that is being made while it is not yet known what will be in it. It is ended when this is
/// dropped.
pub struct Opening {
    started: Started,
    gate: PipeWriter,
}

impl Opening {
    /// Begins to make a sandbox: its namespaces, and its network. Must be called by a thread that lives as
    /// long as the sandbox.
    ///
    /// # Errors
    /// When that cannot be started.
    pub fn begin(
        settings: &Settings,
        own_binary: &Path,
        work: &WorkDir,
        network: bool,
    ) -> io::Result<Self> {
        for sign in [reached(work), running(work)] {
            match fs::remove_file(sign) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let file = work.root().join("enclosure.json");
        write_json(&file, &enclosure(settings, work, network))?;
        let (passed, gate) = io::pipe()?;
        let mut command = wrap(own_binary, environment(&work.outside()), &file);
        command.stdin(passed);
        let started = Started::begin(&mut command)?;
        Ok(Self { started, gate })
    }

    /// Nobody needs it any more.
    pub async fn give_up(self) {
        self.started.kill().await;
    }
}

fn enclosure(settings: &Settings, work: &WorkDir, network: bool) -> Enclosure {
    Enclosure {
        network: match settings.network {
            Network::Egress if !network => Network::None,
            network => network,
        },
        closed: settings.closed.clone(),
        namespace: work.root().join("network"),
        running: running(work),
        contents: contents_file(work),
    }
}

fn contents_file(work: &WorkDir) -> PathBuf {
    work.root().join("contents.json")
}

/// Written when the last command starts.
fn reached(work: &WorkDir) -> PathBuf {
    work.boxed("out").join("reached")
}

/// Out of reach of what runs inside.
fn running(work: &WorkDir) -> PathBuf {
    work.root().join("running")
}

/// The chain of wrappers around `runner enclose`.
fn wrap(own_binary: &Path, env: Vec<(String, String)>, spec: &Path) -> Command {
    let mut command = Command::new(own_binary);
    command
        .args(["runner", "unshare", "--first", "--"])
        .arg(own_binary)
        .args(["runner", "enclose", "--spec"])
        .arg(spec);
    command.env_clear().envs(env);
    command
}

/// Removes a directory with files of subordinate users: that goes only within the user namespace.
pub fn remove_tree(own_binary: &Path, dir: &Path) -> std::process::Command {
    let [program, words @ ..] = userns::wrapper(own_binary);
    let mut command = std::process::Command::new(program);
    command
        .args(words)
        .args(["rm", "-rf", "--"])
        .arg(dir)
        .env_clear()
        .env("PATH", PATH);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::settings::{Isolation, Limits};

    #[test]
    fn only_what_is_named_is_there_and_the_environment_is_bare() {
        let work = tempfile::tempdir().unwrap();
        let settings = Settings {
            buildah: "buildah".into(),
            cache: "/var/cache/nb".into(),
            insecure: vec![],
            ca_file: None,
            git_allow_http: false,
            isolation: Isolation::Auto,
            network: Network::Host,
            closed: vec![],
            no_new_privileges: true,
            limits: Limits::default(),
            environment: vec![("HTTPS_PROXY".into(), "http://user:pass@proxy".into())],
        };
        let host = Host {
            buildah: "/usr/bin/buildah".into(),
            version: "1.28.2".into(),
            home: "/home/nb".into(),
            own_binary: "/usr/local/bin/nomad-build".into(),
            isolation: vec!["--isolation".into(), "chroot".into()],
            refused: Vec::new(),
            init: "/usr/bin/catatonit".into(),
        };
        let private = work.path().join("private");
        let work = WorkDir::new(work.path()).with_private(Some(private.clone()));
        let sandbox = Sandbox {
            settings: &settings,
            host: &host,
            work: &work,
            layers: None,
            bases: &[],
        };
        let contents = sandbox.contents(vec![vec!["true".into()]], Reach::default());
        let spec = contents.unwrap().inside;
        let writable: Vec<_> = spec
            .binds
            .iter()
            .filter(|b| b.writable)
            .map(|b| b.path.clone())
            .collect();
        assert_eq!(writable, [PathBuf::from("/sys"), work.root().join("box")]);
        for hidden in ["/home", "/root", "/etc", "/var", "/run", "/tmp", "/srv"] {
            assert!(
                !spec.binds.iter().any(|b| b.path == Path::new(hidden)),
                "{hidden}"
            );
        }
        for hidden in [private, work.git(), work.secrets_inside(), work.src()] {
            assert!(
                !spec.binds.iter().any(|b| hidden.starts_with(&b.path)),
                "{}",
                hidden.display()
            );
        }
        let names: Vec<_> = spec.env.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(
            names,
            [
                "PATH",
                "HOME",
                "TMPDIR",
                "XDG_RUNTIME_DIR",
                "LC_ALL",
                "GOGC",
                "GOMEMLIMIT"
            ]
        );
        let command = wrap(&host.own_binary, environment(&work.outside()), work.root());
        assert_eq!(command.as_std().get_envs().count(), 5);
    }
}
