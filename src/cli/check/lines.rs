//! What was found out about a machine as lines for people. Does no I/O.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::hold;
use super::limits::Limited;
use super::sandbox::Trial;

/// The oldest Buildah that is known to work.
const OLDEST: (u32, u32) = (1, 28);
/// From this one on Buildah wants netavark, whatever network a build has.
const NETAVARK: (u32, u32) = (1, 39);
/// Programs, and the Debian packages that have them.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("runc", "runc"),
    ("catatonit", "catatonit"),
    ("newuidmap", "uidmap"),
    ("newgidmap", "uidmap"),
    ("setsid", "util-linux"),
    ("git", "git"),
    ("pasta", "passt"),
    ("ip", "iproute2"),
];
/// What pasta opens to make a network.
pub const TUN: &str = "/dev/net/tun";

/// One item.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub item: String,
    /// What was found, or what is missing.
    pub state: State,
}

/// See [`Line`].
pub type State = Result<String, Lack>;

/// Something that is not as it should be, or that nobody has tried.
#[derive(Debug, PartialEq, Eq)]
pub struct Lack {
    kind: Kind,
    what: String,
    mend: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Builds need it, and it is not there.
    Missing,
    /// It is there, and must not be as it is.
    Wrong,
    /// Builds run without it: this host, or the configuration, does not hold them to it.
    Unenforced,
    /// Nobody can say.
    Untried,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::Unenforced => "unenforced",
            Self::Untried => "untried",
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let item = &self.item;
        match &self.state {
            Ok(found) => write!(f, "ok       {item}: {found}"),
            Err(Lack { kind, what, mend }) => {
                write!(f, "{:<7}  {item}: {what}", kind.word())?;
                match mend.as_str() {
                    "" => Ok(()),
                    _ => write!(f, "; mend it: {mend}"),
                }
            }
        }
    }
}

impl Line {
    /// For machines.
    pub fn json(&self) -> Value {
        let item = &self.item;
        match &self.state {
            Ok(found) => json!({"item": item, "state": "ok", "found": found}),
            Err(Lack { kind, what, mend }) => {
                let key = if self.is_fault() { "wrong" } else { "why" };
                match mend.as_str() {
                    "" => json!({"item": item, "state": kind.word(), key: what}),
                    _ => json!({"item": item, "state": kind.word(), key: what, "mend": mend}),
                }
            }
        }
    }

    /// Whether it is in the way of builds.
    pub fn is_fault(&self) -> bool {
        let kind = self.state.as_ref().err().map(|lack| lack.kind);
        matches!(kind, Some(Kind::Missing | Kind::Wrong))
    }
}

/// An item with what was found of it.
pub fn line(item: &str, state: State) -> Line {
    let item = item.to_owned();
    Line { item, state }
}

/// Something is wrong, and what mends it.
pub fn lack(wrong: impl Into<String>, mend: impl Into<String>) -> State {
    not_ok(Kind::Missing, wrong.into(), mend.into())
}

/// Something is there and must not be as it is, and what mends it.
pub fn flaw(wrong: impl Into<String>, mend: impl Into<String>) -> State {
    not_ok(Kind::Wrong, wrong.into(), mend.into())
}

/// Builds run without something that would hold them, and what brings it about.
pub fn unenforced(what: impl Into<String>, mend: impl Into<String>) -> State {
    not_ok(Kind::Unenforced, what.into(), mend.into())
}

/// Nobody has tried it, and why.
pub fn untried(why: impl Into<String>) -> State {
    not_ok(Kind::Untried, why.into(), String::new())
}

fn not_ok(kind: Kind, what: String, mend: String) -> State {
    Err(Lack { kind, what, mend })
}

/// What this machine tells.
#[derive(Debug, Clone)]
pub struct Facts {
    /// As it is configured.
    pub buildah: String,
    /// Where it is, and what it says its version is.
    pub found: Option<(PathBuf, String)>,
    /// Where the programs are, in the order of [`PROGRAMS`].
    pub programs: Vec<Option<PathBuf>>,
    /// Programs among [`PROGRAMS`] that may not map ids.
    pub powerless: Vec<PathBuf>,
    /// Whether it is where Buildah looks for it.
    pub netavark: bool,
    /// How a build user opens [`TUN`], and who tried; none when there is nobody to try it as.
    pub tun: Option<(String, Result<(), String>)>,
    /// Settings of the kernel; none that it does not have.
    pub max_user_namespaces: Option<u64>,
    /// See above.
    pub unprivileged_userns_clone: Option<u64>,
    /// See above.
    pub apparmor_restricts: Option<u64>,
    /// Whether processes like this one can gain no privileges, as setuid programs do.
    pub no_new_privs: bool,
    /// Whether AppArmor has rules for Buildah, which allow it namespaces.
    pub apparmor_knows_buildah: bool,
    /// Whether the kernel has overlayfs, on which layers lie.
    pub overlay: bool,
    /// Whom builds run as.
    pub users: Who,
    /// The sandboxes of the profiles.
    pub sandboxes: Vec<Trial>,
    /// Whether nothing in a sandbox may gain privileges.
    pub no_new_privileges: bool,
    /// Limits on memory and processors.
    pub limits: Limited,
}

/// Whom builds run as.
#[derive(Debug, Clone)]
pub enum Who {
    /// An ordinary user as itself, and its faults.
    Own(String, Vec<String>),
    /// Not as root, who asks: the state directory is another user's.
    Stranger(Stranger),
    /// Accounts, each with what it has or with its faults.
    Pool {
        /// Name of the first, which may be missing.
        first: String,
        /// The command that makes them.
        remedy: String,
        /// In their order.
        accounts: Vec<(String, Result<String, Vec<String>>)>,
    },
}

/// A user to whom the state directory belongs, and so the server, and its builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its name.
    pub name: String,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The configuration file, where one is known.
    pub config: Option<PathBuf>,
}

/// A line an item.
pub fn lines(facts: &Facts) -> Vec<Line> {
    let mut lines = vec![buildah(facts)];
    if version(facts) >= Some(NETAVARK) {
        let state = match facts.netavark {
            true => Ok("there".into()),
            false => lack("not there", "apt-get install netavark"),
        };
        lines.push(line("netavark", state));
    }
    for ((name, package), path) in PROGRAMS.iter().zip(&facts.programs) {
        lines.push(line(name, program(facts, package, path.as_deref())));
    }
    lines.push(line(TUN, tun(facts)));
    lines.push(line("user namespaces", namespaces(facts)));
    let state = match facts.overlay {
        true => Ok("the kernel has it".into()),
        false => lack("the kernel has it not", "modprobe overlay"),
    };
    lines.push(line("overlay", state));
    lines.extend(users(&facts.users));
    lines.extend(hold::lines(facts));
    lines
}

/// "buildah version 1.28.2 (image-spec …)"
fn version(facts: &Facts) -> Option<(u32, u32)> {
    let (_, said) = facts.found.as_ref()?;
    let mut numbers = said.split_whitespace().nth(2)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn buildah(facts: &Facts) -> Line {
    let (major, minor) = OLDEST;
    let install = "apt-get install buildah, or set NOMAD_BUILD_BUILDAH to the path of another";
    let state = match &facts.found {
        None => lack(format!("{} is not there", facts.buildah), install),
        Some((path, said)) => {
            let path = path.display();
            let number = said.split_whitespace().nth(2).unwrap_or_default();
            match version(facts) {
                None => lack(format!("{path} does not tell its version: {said}"), install),
                Some(version) if version < OLDEST => lack(
                    format!("{path} is {number}, older than {major}.{minor}"),
                    install,
                ),
                Some(_) => Ok(format!("{number} ({path})")),
            }
        }
    };
    line("buildah", state)
}

fn program(facts: &Facts, package: &str, path: Option<&Path>) -> State {
    let Some(path) = path else {
        return lack("not there", format!("apt-get install {package}"));
    };
    let shown = path.display();
    if facts.powerless.iter().any(|one| one == path) {
        return lack(
            format!("{shown} has neither setuid nor capabilities"),
            format!("chmod u+s {shown}"),
        );
    }
    Ok(shown.to_string())
}

fn tun(facts: &Facts) -> State {
    match &facts.tun {
        None if matches!(facts.users, Who::Stranger(_)) => untried("see the user below"),
        None => lack("nobody is there to try it as", "see the accounts below"),
        Some((who, Ok(()))) => Ok(format!("{who} can open it")),
        Some((who, Err(error))) => lack(
            format!("{who} cannot open it: {error}"),
            format!("modprobe tun && chmod 0666 {TUN}; for a container, --device {TUN}"),
        ),
    }
}

fn namespaces(facts: &Facts) -> State {
    let off = |wrong: &str, setting: &str| lack(wrong, format!("sysctl -w {setting}"));
    if facts.no_new_privs {
        return lack(
            "newuidmap cannot gain its privilege (no_new_privs)",
            "start the server without NoNewPrivileges=, or --security-opt no-new-privileges",
        );
    }
    match facts.max_user_namespaces {
        None => lack("this kernel has none", "use a kernel with CONFIG_USER_NS"),
        Some(0) => off("none are allowed", "user.max_user_namespaces=15000"),
        Some(_) if facts.unprivileged_userns_clone == Some(0) => off(
            "only root may make them",
            "kernel.unprivileged_userns_clone=1",
        ),
        Some(_) if facts.apparmor_restricts == Some(1) && !facts.apparmor_knows_buildah => off(
            "AppArmor keeps Buildah from making them",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        Some(most) => Ok(format!("allowed, {most} at most")),
    }
}

fn users(who: &Who) -> Vec<Line> {
    match who {
        Who::Own(name, faults) if faults.is_empty() => {
            let state = Ok("builds run as this user, which has subordinate ids".into());
            vec![line(name, state)]
        }
        Who::Own(name, faults) => {
            vec![line(
                name,
                lack(faults.join("; "), "nomad-build setup tells how"),
            )]
        }
        Who::Stranger(stranger) => {
            let Stranger {
                name,
                state_dir,
                config,
            } = stranger;
            let config = config.as_ref();
            let config = config.map_or(String::new(), |file| {
                format!(" --config {}", file.display())
            });
            let state_dir = state_dir.display();
            let wrong = format!(
                "this is root, but {state_dir} belongs to {name}: the server runs as that user, and so do its builds"
            );
            let mend =
                format!("sudo -u {name} nomad-build check{config} --set state_dir={state_dir}");
            vec![line("user", flaw(wrong, mend))]
        }
        Who::Pool {
            first,
            remedy,
            accounts,
        } if accounts.is_empty() => {
            vec![line(first, lack("not there", remedy))]
        }
        Who::Pool {
            remedy, accounts, ..
        } => {
            let state = |found: &Result<String, Vec<String>>| match found {
                Ok(found) => Ok(found.clone()),
                Err(faults) => lack(faults.join("; "), remedy),
            };
            let accounts = accounts.iter();
            accounts
                .map(|(name, found)| line(name, state(found)))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sandbox::Outcome;
    use super::*;
    use crate::config::Network;

    fn well() -> Facts {
        Facts {
            buildah: "buildah".into(),
            found: Some((
                "/usr/bin/buildah".into(),
                "buildah version 1.28.2 (image-spec x)".into(),
            )),
            programs: (PROGRAMS.iter())
                .map(|(name, _)| Some(Path::new("/usr/bin").join(name)))
                .collect(),
            powerless: Vec::new(),
            netavark: false,
            tun: Some(("b-0".into(), Ok(()))),
            max_user_namespaces: Some(96_365),
            unprivileged_userns_clone: None,
            apparmor_restricts: None,
            no_new_privs: false,
            apparmor_knows_buildah: false,
            users: Who::Pool {
                first: "b-0".into(),
                remedy: "nomad-build setup".into(),
                accounts: vec![
                    ("b-0".into(), Ok("subordinate ids 100000-165535".into())),
                    ("b-1".into(), Ok("subordinate ids 165536-231071".into())),
                ],
            },
            overlay: true,
            sandboxes: vec![trial(&["default"], Network::Egress, holds())],
            no_new_privileges: true,
            limits: Limited {
                set: vec![("default".into(), [None, None])],
                unenforced: Ok(Vec::new()),
            },
        }
    }

    fn trial(profiles: &[&str], network: Network, outcome: Outcome) -> Trial {
        Trial {
            profiles: profiles.iter().map(|&name| name.into()).collect(),
            network,
            outcome,
        }
    }

    fn holds() -> Outcome {
        Outcome::Holds {
            isolation: vec!["--isolation".into(), "rootless".into()],
            refused: Vec::new(),
            user: "b-0".into(),
            now: true,
        }
    }

    /// The lines about an item.
    fn about(facts: &Facts, item: &str) -> Vec<String> {
        let lines = lines(facts);
        let wanted = lines.iter().filter(|line| line.item.starts_with(item));
        wanted.map(Line::to_string).collect()
    }

    /// The lines about what is missing.
    fn missing(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut facts = well();
        change(&mut facts);
        let lines = lines(&facts);
        let missing = lines.iter().filter(|line| line.state.is_err());
        missing.map(Line::to_string).collect()
    }

    fn found(said: &str) -> Option<(PathBuf, String)> {
        Some(("/opt/buildah".into(), said.into()))
    }

    #[test]
    fn where_all_is_there_every_item_says_so() {
        let shown: Vec<String> = lines(&well()).iter().map(Line::to_string).collect();
        assert_eq!(
            shown.first().unwrap(),
            "ok       buildah: 1.28.2 (/usr/bin/buildah)"
        );
        assert!(
            shown.iter().all(|line| line.starts_with("ok ")),
            "{shown:#?}"
        );
        assert_eq!(shown.len(), 1 + PROGRAMS.len() + 3 + 2 + 1 + 2);
        assert!(shown.contains(&"ok       b-1: subordinate ids 165536-231071".into()));
    }

    #[test]
    fn the_sandbox_that_was_found_is_told_with_what_it_stops() {
        let mut facts = well();
        let told = |facts: &Facts| about(facts, "sandbox").concat();
        assert_eq!(
            told(&facts),
            "ok       sandbox: --isolation rootless; tried as b-0 just now, nothing in it reached this host's \
             files (by their paths, by mounts of RUN, through /proc, out of a chroot), processes, \
             network (loopback, own addresses, abstract sockets); it has a network of its own, out to the internet"
        );
        facts.sandboxes = vec![
            trial(&["default", "a"], Network::Host, holds()),
            trial(&["b", "c"], Network::None, holds()),
        ];
        let lines = about(&facts, "sandbox");
        assert!(
            lines[0].ends_with("processes; this host's network is open to it"),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("ok       sandbox of b, c: ")
                && lines[1].ends_with("; it has no network")
        );
        let open = about(&facts, "network");
        assert!(
            open[0].starts_with(
                "unenforced  network: RUN and tests of the profiles default, a share this host's"
            ),
            "{open:?}"
        );
    }

    #[test]
    fn a_sandbox_that_is_refused_or_untried_is_not_ok() {
        let mut facts = well();
        let refused = Outcome::Refused("no sandbox holds.".into(), "Install it.".into());
        facts.sandboxes = vec![
            trial(&["default"], Network::Egress, refused),
            trial(
                &["a"],
                Network::None,
                Outcome::Untried("nobody is there".into()),
            ),
        ];
        let lines: Vec<Line> = lines(&facts)
            .into_iter()
            .filter(|line| line.item.starts_with("sandbox"))
            .collect();
        assert_eq!(
            lines.iter().map(Line::to_string).collect::<Vec<_>>(),
            [
                "missing  sandbox: builds are refused: no sandbox holds; mend it: Install it.",
                "untried  sandbox of a: nobody is there",
            ]
        );
        assert_eq!(
            lines.iter().map(Line::is_fault).collect::<Vec<_>>(),
            [true, false]
        );
        assert_eq!(
            lines[1].json(),
            json!({"item": "sandbox of a", "state": "untried", "why": "nobody is there"})
        );
    }

    #[test]
    fn what_nothing_holds_builds_to_is_unenforced_and_no_fault() {
        let mut facts = well();
        facts.no_new_privileges = false;
        facts.limits = Limited {
            set: vec![
                ("default".into(), [Some("512 MiB".into()), None]),
                ("a".into(), [Some("1024 MiB".into()), None]),
            ],
            unenforced: Ok(vec!["memory".into()]),
        };
        let memory = about(&facts, "limits.memory_mb").concat();
        assert!(
            memory.starts_with("unenforced  limits.memory_mb: 512 MiB of default, 1024 MiB of a; ")
                && memory.contains("; mend it: start the server where it may make cgroups"),
            "{memory}"
        );
        assert_eq!(
            about(&facts, "limits.cpus"),
            ["ok       limits.cpus: not set; a cgroup can limit it"]
        );
        assert!(about(&facts, "no_new")[0].starts_with("unenforced  no_new_privileges: "));
        assert!(!lines(&facts).iter().any(Line::is_fault));
        let told = line("x", unenforced("free", "bind it")).json();
        assert_eq!(
            told,
            json!({"item": "x", "state": "unenforced", "why": "free", "mend": "bind it"})
        );
        facts.limits.unenforced = Err("no answer".into());
        assert_eq!(
            about(&facts, "limits.cpus"),
            ["untried  limits.cpus: no answer"]
        );
    }

    #[test]
    fn root_is_sent_to_the_user_whose_state_it_is() {
        let mut facts = well();
        let stranger = |config: Option<&str>| {
            Who::Stranger(Stranger {
                name: "nomad-build".into(),
                state_dir: "/var/lib/nomad-build".into(),
                config: config.map(Into::into),
            })
        };
        facts.tun = None;
        facts.users = stranger(Some("/etc/nb.toml"));
        assert_eq!(
            about(&facts, "user").last().unwrap(),
            "wrong    user: this is root, but /var/lib/nomad-build belongs to nomad-build: the server runs as that user, \
             and so do its builds; mend it: sudo -u nomad-build nomad-build check --config /etc/nb.toml \
             --set state_dir=/var/lib/nomad-build"
        );
        assert_eq!(
            about(&facts, TUN),
            ["untried  /dev/net/tun: see the user below"]
        );
        facts.users = stranger(None);
        assert!(
            about(&facts, "user")
                .concat()
                .contains("nomad-build check --set state_dir=")
        );
    }

    #[test]
    fn machines_are_told_the_same() {
        let shown = line("x", Ok("there".into())).json();
        assert_eq!(shown, json!({"item": "x", "state": "ok", "found": "there"}));
        let shown = line("x", flaw("bad", "mend")).json();
        assert_eq!(
            shown,
            json!({"item": "x", "state": "wrong", "wrong": "bad", "mend": "mend"})
        );
        let shown = line("x", lack("none", "mend")).json();
        assert_eq!(shown["state"], "missing");
    }

    #[test]
    fn each_missing_program_names_its_package() {
        for (index, (name, package)) in PROGRAMS.iter().enumerate() {
            let lines = missing(|facts| facts.programs[index] = None);
            let line = format!("missing  {name}: not there; mend it: apt-get install {package}");
            assert_eq!(lines, [line]);
        }
        let lines = missing(|facts| facts.powerless.push("/usr/bin/newgidmap".into()));
        assert_eq!(
            lines,
            [
                "missing  newgidmap: /usr/bin/newgidmap has neither setuid nor capabilities; \
              mend it: chmod u+s /usr/bin/newgidmap"
            ]
        );
    }

    #[test]
    fn buildah_is_there_tells_its_version_and_is_not_too_old() {
        let install =
            "mend it: apt-get install buildah, or set NOMAD_BUILD_BUILDAH to the path of another";
        for (found, wrong) in [
            (None, "buildah is not there"),
            (
                found("cannot run"),
                "/opt/buildah does not tell its version: cannot run",
            ),
            (
                found("buildah version 1.27.9 (x)"),
                "/opt/buildah is 1.27.9, older than 1.28",
            ),
        ] {
            let lines = missing(|facts| facts.found = found);
            assert_eq!(lines, [format!("missing  buildah: {wrong}; {install}")]);
        }
        for version in ["1.28.0", "1.29.0-dev", "2.0.0"] {
            let said = format!("buildah version {version} (x)");
            let lines = missing(|facts| {
                facts.found = found(&said);
                facts.netavark = true;
            });
            assert_eq!(lines, [""; 0], "{version}");
        }
    }

    #[test]
    fn netavark_is_needed_from_1_39_on() {
        let lines = missing(|facts| facts.found = found("buildah version 1.39.0 (x)"));
        assert_eq!(
            lines,
            ["missing  netavark: not there; mend it: apt-get install netavark"]
        );
        let lines = missing(|facts| facts.found = found("buildah version 1.38.9 (x)"));
        assert_eq!(lines, [""; 0]);
    }

    #[test]
    fn what_keeps_namespaces_and_the_network_away_is_named() {
        type Change = fn(&mut Facts);
        let changes: [(Change, &str); 8] = [
            (|f| f.overlay = false, "modprobe overlay"),
            (|f| f.no_new_privs = true, "NoNewPrivileges"),
            (|f| f.max_user_namespaces = None, "CONFIG_USER_NS"),
            (
                |f| f.max_user_namespaces = Some(0),
                "sysctl -w user.max_user_namespaces=15000",
            ),
            (
                |f| f.unprivileged_userns_clone = Some(0),
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                |f| f.apparmor_restricts = Some(1),
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                |f| f.tun = Some(("b-0".into(), Err("Permission denied".into()))),
                "chmod 0666 /dev/net/tun",
            ),
            (|f| f.tun = None, "nobody is there to try it as"),
        ];
        for (change, mend) in changes {
            let lines = missing(change);
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].contains(mend), "{lines:?}");
        }
        let allowed = missing(|facts| {
            facts.unprivileged_userns_clone = Some(1);
            facts.apparmor_restricts = Some(1);
            facts.apparmor_knows_buildah = true;
        });
        assert_eq!(allowed, [""; 0]);
    }

    #[test]
    fn users_without_ids_of_their_own_are_named() {
        let pool = |accounts| Who::Pool {
            first: "ci-0".into(),
            remedy: "nomad-build setup --prefix ci".into(),
            accounts,
        };
        let lines = missing(|facts| facts.users = pool(Vec::new()));
        assert_eq!(
            lines,
            ["missing  ci-0: not there; mend it: nomad-build setup --prefix ci"]
        );
        let faults = vec!["one".into(), "two".into()];
        let accounts = vec![
            ("ci-0".into(), Ok("x".into())),
            ("ci-1".into(), Err(faults)),
        ];
        let lines = missing(|facts| facts.users = pool(accounts));
        assert_eq!(
            lines,
            ["missing  ci-1: one; two; mend it: nomad-build setup --prefix ci"]
        );
        let own = |faults| Who::Own("alice".into(), faults);
        assert_eq!(missing(|facts| facts.users = own(Vec::new())), [""; 0]);
        let lines = missing(|facts| facts.users = own(vec!["none".into()]));
        assert_eq!(
            lines,
            ["missing  alice: none; mend it: nomad-build setup tells how"]
        );
    }
}
