//! `nomad-build check`: what builds need on this machine, and the command that mends what is missing.
//!
//! ```text
//! gather (I/O) ─▶ Facts ─▶ lines (pure) ─▶ print
//!   └ sandbox     tried as a build tries it
//! ```
//! Or, for the other backend, what they need on a cluster, or of its Vault.

mod cluster;
mod cluster_lines;
mod hold;
pub(super) mod limits;
mod lines;
mod registries;
mod sandbox;
mod vault;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use serde_json::{Value, json};

use crate::backend::local::accounts::{self, Account, Ids};
use crate::backend::local::user::{BuildUser, is_other};
use crate::config::{BackendKind, Config, Given};
use crate::runner::subid::{self, Owner};
use crate::runner::{probe, sandbox::PATH};

use lines::{Facts, Line, PROGRAMS, Stranger, TUN, Who, lines};

/// Where Buildah looks for netavark: `helper_binaries_dir` of containers.conf(5).
const HELPERS: &[&str] = &[
    "/usr/local/libexec/podman",
    "/usr/local/lib/podman",
    "/usr/libexec/podman",
    "/usr/lib/podman",
];
/// Those that map ids, with a privilege of their own.
const MAPPERS: &[&str] = &["newuidmap", "newgidmap"];
/// The configuration of the service that the package has.
const SERVICE: &str = "/etc/nomad-build/nomad-build.toml";

/// Tell what builds need on this machine, or on a cluster, and what mends it. The sandbox is tried, as the first
/// build would try it, which takes a few seconds. Ends with 1 when something is missing or wrong; what this host
/// does not hold builds to is called unenforced, and what nobody could try, untried.
#[derive(Debug, Args)]
pub struct Check {
    /// Where builds run. Default: what the configuration says.
    #[arg(long, value_enum)]
    backend: Option<BackendKind>,
    /// Look at Vault (or OpenBao) instead, which VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT and VAULT_NAMESPACE name: whether its roles and policies let each task of a cluster have its secrets, and nobody else. Reads no secret.
    #[arg(long)]
    vault: bool,
    #[command(flatten)]
    places: vault::Places,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    given: Given,
}

impl Check {
    /// Prints a line an item.
    ///
    /// # Errors
    /// When the configuration or the user database cannot be read.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(&self.given)?;
        let found = match self.backend.unwrap_or(config.backend) {
            _ if self.vault => {
                let namespace = std::env::var("NOMAD_NAMESPACE").ok();
                let namespace = namespace.filter(|name| !name.is_empty());
                let plan = vault::Plan::new(&config, self.places, namespace);
                vault::lines(&vault::gather(&plan)?, &plan)
            }
            BackendKind::Local => self.look_here(&config)?,
            BackendKind::Nomad => cluster_lines::lines(&cluster::gather(&config)?, &config),
        };
        let faults = found.iter().filter(|line| line.is_fault()).count();
        let well = faults == 0;
        let mut out = io::stdout();
        if self.json {
            let items: Vec<Value> = found.iter().map(Line::json).collect();
            writeln!(out, "{:#}", json!({"ok": well, "items": items}))?;
        } else {
            for line in &found {
                writeln!(out, "{line}")?;
            }
            // For people; the lines are for scripts, too.
            let told = match faults {
                0 => "nothing is missing".to_owned(),
                1 => "one line says what is missing or wrong, and what mends it".to_owned(),
                many => format!("{many} lines say what is missing or wrong, and what mends it"),
            };
            writeln!(io::stderr(), "nomad-build: {told}")?;
        }
        Ok(ExitCode::from(u8::from(!well)))
    }

    fn look_here(&self, config: &Config) -> io::Result<Vec<Line>> {
        let stranger = self.stranger(config)?;
        // The sandbox comes last: this process is not easily ended after that.
        let registries = match &stranger {
            Some(stranger) => registries::untried(&stranger.name),
            None => registries::lines(config)?,
        };
        let mut found = lines(&gather(config, stranger)?);
        found.extend(registries);
        Ok(found)
    }

    /// Root that looks at what another user serves would look at accounts, files and rights that nobody uses.
    fn stranger(&self, config: &Config) -> io::Result<Option<Stranger>> {
        let owner = fs::metadata(&config.state_dir).map_or(0, |metadata| metadata.uid());
        if !is_other() || owner == 0 {
            return Ok(None);
        }
        let user = nix::unistd::User::from_uid(owner.into())?;
        let name = user.map_or_else(|| format!("'#{owner}'"), |user| user.name);
        let variable = std::env::var_os("NOMAD_BUILD_CONFIG").filter(|file| !file.is_empty());
        let named = self.given.file.clone().or(variable.map(PathBuf::from));
        let service = || Some(PathBuf::from(SERVICE)).filter(|file| file.exists());
        Ok(Some(Stranger {
            name,
            state_dir: config.state_dir.clone(),
            config: named.or_else(service),
        }))
    }
}

fn gather(config: &Config, stranger: Option<Stranger>) -> io::Result<Facts> {
    let programs: Vec<Option<PathBuf>> = (PROGRAMS.iter())
        .map(|(name, _)| probe::find(name))
        .collect();
    let powerless = (programs.iter().flatten())
        .filter(|path| MAPPERS.iter().any(|name| path.ends_with(name)) && !has_power(path))
        .cloned()
        .collect();
    let number = |file: &str| -> Option<u64> {
        let text = fs::read_to_string(Path::new("/proc/sys").join(file)).ok()?;
        text.trim().parse().ok()
    };
    let (users, accounts) = match stranger {
        Some(stranger) => (Who::Stranger(stranger), None),
        None => who(config)?,
    };
    let sandboxes = match &users {
        Who::Stranger(one) => {
            let why = format!("it is to be tried as {}, see the user above", one.name);
            sandbox::untried(config, &why)
        }
        _ => sandbox::look(config, accounts.as_deref().unwrap_or_default())?,
    };
    let first = match (&users, &accounts) {
        (Who::Own(name, _), _) => Some((name.clone(), BuildUser::own())),
        (_, accounts) => (accounts.iter().flatten().next())
            .map(|account| (account.name.clone(), BuildUser::of(account))),
    };
    Ok(Facts {
        buildah: config.buildah.clone(),
        found: probe::find(&config.buildah).map(|path| {
            let said = sandbox::version_of(&path);
            (path, said)
        }),
        programs,
        powerless,
        netavark: (HELPERS.iter()).any(|dir| Path::new(dir).join("netavark").is_file()),
        tun: first.map(|(name, user)| (name, open_tun(&user))),
        max_user_namespaces: number("user/max_user_namespaces"),
        unprivileged_userns_clone: number("kernel/unprivileged_userns_clone"),
        apparmor_restricts: number("kernel/apparmor_restrict_unprivileged_userns"),
        no_new_privs: fs::read_to_string("/proc/self/status")?
            .lines()
            .any(|line| line == "NoNewPrivs:\t1"),
        apparmor_knows_buildah: Path::new("/etc/apparmor.d/buildah").exists(),
        overlay: fs::read_to_string("/proc/filesystems")?
            .lines()
            .any(|line| line.ends_with("\toverlay")),
        sandboxes,
        no_new_privileges: config.sandbox.no_new_privileges,
        limits: match &users {
            Who::Stranger(_) => limits::untried(config, "see the user above"),
            _ => limits::look(config),
        },
        users,
    })
}

/// Whom builds run as, and the accounts among them.
fn who(config: &Config) -> io::Result<(Who, Option<Vec<Account>>)> {
    let ids = Ids::read()?;
    if !is_other() {
        let uid = nix::unistd::Uid::effective();
        let name = nix::unistd::User::from_uid(uid)?.map(|user| user.name);
        let faults = match &name {
            None => vec![format!(
                "the uid {uid} has no entry in the password database"
            )],
            Some(name) => {
                let owner = Owner {
                    name,
                    uid: Some(uid.as_raw()),
                };
                [&ids.uids, &ids.gids]
                    .into_iter()
                    .filter_map(|table| table.lack(owner))
                    .collect()
            }
        };
        let name = name.unwrap_or_else(|| uid.to_string());
        return Ok((Who::Own(name, faults), None));
    }
    let prefix = &config.sandbox.user;
    let pool = accounts::pool(prefix, &ids)?;
    let look = |account: &Account| {
        let faults = accounts::faults(account, &ids);
        let state = if faults.is_empty() {
            let ranges: Vec<String> = (account.subuids.iter())
                .map(subid::Range::to_string)
                .collect();
            Ok(format!("subordinate ids {}", ranges.join(", ")))
        } else {
            Err(faults)
        };
        (account.name.clone(), state)
    };
    let who = Who::Pool {
        first: accounts::name(prefix, 0),
        remedy: accounts::remedy(prefix),
        accounts: pool.iter().map(look).collect(),
    };
    Ok((who, Some(pool)))
}

/// Setuid, or file capabilities.
fn has_power(program: &Path) -> bool {
    let setuid = fs::metadata(program).is_ok_and(|metadata| metadata.mode() & 0o4000 != 0);
    setuid || rustix::fs::getxattr(program, "security.capability", &mut [0u8; 64]).is_ok()
}

/// A real attempt: access lists and missing drivers count, too.
fn open_tun(user: &BuildUser) -> Result<(), String> {
    // The shell would make a file that is missing.
    fs::metadata(TUN).map_err(|error| error.to_string())?;
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec 3<>{TUN}")])
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null());
    user.apply(&mut command);
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said
        .trim()
        .rsplit(": ")
        .next()
        .unwrap_or_default()
        .to_owned())
}
