//! A decoded request becomes a plan, or every fault of it. Pure: what needs a look at the disk or
//! the network is checked elsewhere.

use std::collections::BTreeMap;

use super::classify::{PathOrText, classify_path_or_text};
use super::git_ref::RefName;
use super::git_url::GitUrl;
use super::output::{self, IMAGE, MAX_OUTPUTS};
use super::plan::{Plan, PlanSource, PlanTest};
use super::reference::{PushReference, ReferenceError};
use super::request::{BuildRequest, FileRequest, SourceRequest, TestRequest};
use super::scope::Scopes;
use super::{BuildId, named_context};
use crate::schema::error_code::ErrorCode;
use crate::schema::{ArgFault, suggest};

/// Bytes of all `files` together.
const MAX_FILES_BYTES: usize = 262_144;
/// Default of `timeout`, in seconds.
pub const DEFAULT_TIMEOUT: u32 = 3600;
/// Default of `queue_timeout`, in seconds.
pub const DEFAULT_QUEUE_TIMEOUT: u32 = 1800;
/// Default of a test's `timeout`, in seconds.
pub const DEFAULT_TEST_TIMEOUT: u32 = 600;

/// What the operator allows this principal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Profiles, the first of which is the default.
    pub profiles: Vec<String>,
    /// Names of secrets, by profile.
    pub secrets: BTreeMap<String, Vec<String>>,
    /// Beginnings of tags; none: all.
    pub tags: Option<Vec<String>>,
    /// Beginnings of git URLs; none: all.
    pub git: Option<Vec<String>>,
    /// Whether git may fetch over plain HTTP.
    pub git_allow_http: bool,
    /// Whether `path` is taken.
    pub paths: bool,
    /// Whether uploads are taken.
    pub uploads: bool,
    /// Profiles whose builds may hand something over.
    pub outputs: Vec<String>,
}

/// The base of the sources, checked as far as that goes without a look at it.
#[derive(Debug, Clone, PartialEq)]
pub enum Base {
    /// A git repository.
    Git {
        /// URL without credentials.
        url: String,
        /// Branch, tag or commit.
        git_ref: Option<String>,
        /// Patch to apply.
        patch: Option<String>,
    },
    /// A directory of this machine.
    Path(String),
    /// An upload.
    Context(String),
    /// Nothing but the files.
    Files,
}

/// A request without faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Valid {
    /// Where the sources come from.
    pub base: Base,
    /// Files on top of it, or the whole source.
    pub files: Vec<FileRequest>,
    plan: Plan,
}

impl Valid {
    /// The plan, once the sources are known.
    pub fn into_plan(self, id: BuildId, source: PlanSource, submitted: i64) -> Plan {
        Plan {
            build_id: id,
            source,
            submitted,
            ..self.plan
        }
    }

    /// What the plan will hold, before id and source are known.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// Whether a text may stand as a name in our own sentences.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether a text may name a secret: a file of this name.
pub fn is_secret(text: &str) -> bool {
    is_name(text) && !text.starts_with('.')
}

/// Checks a request against its own rules and the operator's.
///
/// # Errors
/// Every fault that was found.
pub fn validate(request: &BuildRequest, rules: &Rules) -> Result<Valid, Vec<ArgFault>> {
    let mut check = Check {
        rules,
        faults: Vec::new(),
    };
    let source = request.source.clone().unwrap_or_default();
    let base = check.source(&source);
    check.relative("containerfile", request.containerfile.as_deref());
    if let Some(text) = &request.containerfile
        && (text.contains('\n') || classify_path_or_text(text) == PathOrText::Text)
    {
        check.faults.push(
            invalid(
                "containerfile",
                "this is the text of a Containerfile, not its path",
            )
            .expecting("a path below the source; give the text as a file in source.files")
            .example(r#"{"source": {"files": [{"path": "Containerfile", "text": "FROM …"}]}}"#),
        );
    }
    let build_args = check.pairs("build_args", &request.build_args, true);
    let build_contexts = check.contexts(&request.build_contexts);
    let labels = check.pairs("labels", &request.labels, false);
    check.tags(&request.tags);
    let tests = check.tests(&request.tests);
    let profile = check.profile(request.profile.as_deref());
    check.outputs(request, &profile);
    check.secrets("secrets", &request.secrets, &profile);
    for (index, test) in request.tests.iter().enumerate() {
        check.secrets(&format!("tests[{index}].secrets"), &test.secrets, &profile);
    }
    if request.cancel_previous == Some(true) && request.name.is_none() {
        check.faults.push(
            invalid("cancel_previous", "it needs a name")
                .expecting("name, of which older builds are ended"),
        );
    }
    let Check { faults, .. } = check;
    match base {
        Some(base) if faults.is_empty() => Ok(Valid {
            base,
            files: source.files,
            plan: Plan {
                v: Plan::version(&build_contexts),
                build_id: BuildId::from_random([0; 16]),
                source: PlanSource::Snapshot {
                    digest: String::new(),
                    origin: String::new(),
                },
                subdir: (source.subdir.as_deref())
                    .map(named_context::plain)
                    .filter(|subdir| !subdir.is_empty()),
                shown_below: None,
                containerfile: request.containerfile.clone(),
                target: request.target.clone(),
                build_args,
                build_contexts,
                labels,
                tags: request.tags.clone(),
                tests,
                outputs: request.outputs.clone(),
                fail_fast: request.fail_fast.unwrap_or(false),
                secrets: request.secrets.clone(),
                no_cache: request.no_cache.unwrap_or(false),
                scopes: Scopes::default(),
                profile,
                timeout: request.timeout.unwrap_or(DEFAULT_TIMEOUT),
                queue_timeout: request.queue_timeout.unwrap_or(DEFAULT_QUEUE_TIMEOUT),
                submitted: 0,
            },
        }),
        _ => Err(faults),
    }
}

/// Whether a text can be the digest of an upload, or its ticket.
fn is_upload(text: &str) -> bool {
    let hex = |rest: &str| rest.len() == 64 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    text.strip_prefix("sha256:").is_some_and(hex) || text.strip_prefix("upload-").is_some_and(hex)
}

fn invalid(path: &str, problem: impl Into<String>) -> ArgFault {
    ArgFault::new(ErrorCode::InvalidArgument, path, problem)
}

fn not_allowed(path: &str, problem: impl Into<String>) -> ArgFault {
    ArgFault::new(ErrorCode::NotAllowed, path, problem)
}

struct Check<'a> {
    rules: &'a Rules,
    faults: Vec<ArgFault>,
}

impl Check<'_> {
    fn source(&mut self, source: &SourceRequest) -> Option<Base> {
        let given: Vec<&str> = [
            ("git", source.git.is_some()),
            ("path", source.path.is_some()),
            ("context", source.context.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is)| is.then_some(name))
        .collect();
        if given.len() > 1 {
            self.faults.push(
                invalid("source", format!("it has {} at once", given.join(" and ")))
                    .expecting("exactly one of git, path, context; files may lie on top of it"),
            );
            return None;
        }
        if given.is_empty() && source.files.is_empty() {
            self.faults.push(
                invalid("source", "it names nothing to build")
                    .expecting("one of git, path, context or files")
                    .example(r#"{"source": {"path": "/home/me/project"}}"#),
            );
            return None;
        }
        for (name, value) in [("ref", &source.git_ref), ("patch", &source.patch)] {
            if value.is_some() && source.git.is_none() {
                self.faults.push(
                    invalid(
                        &format!("source.{name}"),
                        format!("{name} goes with git only"),
                    )
                    .expecting("source.git"),
                );
            }
        }
        self.relative("source.subdir", source.subdir.as_deref());
        self.files(&source.files);
        if let Some(url) = &source.git {
            return self.git(url, source);
        }
        if let Some(path) = &source.path {
            return self.path(path);
        }
        if let Some(context) = &source.context {
            if !self.rules.uploads {
                self.faults.push(
                    not_allowed("source.context", "this server takes no uploads").expecting(
                        if self.rules.paths {
                            "source.path, source.files or source.git"
                        } else {
                            "source.files or source.git"
                        },
                    ),
                );
            }
            if !is_upload(context) {
                self.faults.push(
                    invalid("source.context", "it is neither a digest nor a ticket")
                        .expecting("sha256:… or upload-…, as PUT /v1/contexts or the error for a path told")
                        .got(context),
                );
            }
            return Some(Base::Context(context.clone()));
        }
        Some(Base::Files)
    }

    fn git(&mut self, url: &str, source: &SourceRequest) -> Option<Base> {
        if let Some(git_ref) = &source.git_ref
            && let Err(fault) = RefName::parse(git_ref)
        {
            self.faults.push(
                invalid("source.ref", fault.to_string())
                    .expecting("a branch, a tag or a full commit id")
                    .got(git_ref),
            );
        }
        match GitUrl::parse(url, self.rules.git_allow_http) {
            Err(fault) => {
                // The URL may hold credentials: it is not repeated.
                self.faults.push(
                    invalid("source.git", fault.to_string())
                        .expecting("https://host/repo, ssh://git@host/repo or git@host:repo"),
                );
                None
            }
            Ok(parsed) => {
                let url = parsed.to_string();
                if let Some(allowed) = &self.rules.git
                    && !allowed.iter().any(|prefix| begins(&url, prefix))
                {
                    self.faults.push(
                        not_allowed("source.git", "the operator does not allow this repository")
                            .expecting(format!(
                                "a URL that begins with one of: {}",
                                listed(allowed)
                            ))
                            .got(&url),
                    );
                }
                Some(Base::Git {
                    url,
                    git_ref: source.git_ref.clone(),
                    patch: source.patch.clone(),
                })
            }
        }
    }

    fn path(&mut self, path: &str) -> Option<Base> {
        if !self.rules.paths {
            self.faults.push(
                ArgFault::new(
                    ErrorCode::PathNotReachable,
                    "source.path",
                    "this server does not read directories of your machine",
                )
                .expecting(if self.rules.uploads {
                    "source.context, source.files or source.git"
                } else {
                    "source.files or source.git"
                }),
            );
        }
        if !path.starts_with('/') || path.contains('\0') {
            self.faults.push(
                invalid("source.path", "it is not an absolute path")
                    .expecting("an absolute path of a directory")
                    .got(path)
                    .example("\"/home/me/project\""),
            );
        }
        Some(Base::Path(path.to_owned()))
    }

    fn files(&mut self, files: &[FileRequest]) {
        let bytes: usize = files.iter().map(|file| file.text.len()).sum();
        if bytes > MAX_FILES_BYTES {
            self.faults.push(invalid("source.files", format!("the texts have {bytes} bytes together")).expecting(format!("at most {MAX_FILES_BYTES} bytes; give a directory (path) or a repository (git) instead")));
        }
    }

    fn relative(&mut self, argument: &str, path: Option<&str>) {
        let Some(path) = path else { return };
        // What has lines is told apart elsewhere.
        if !named_context::is_below(&path.replace('\n', " ")) {
            self.faults.push(
                invalid(
                    argument,
                    "it leads out of the source, or has characters that a path here must not have",
                )
                .expecting("a path below the root of the source, without ..")
                .got(path),
            );
        }
    }

    fn pairs(&mut self, argument: &str, pairs: &[String], private: bool) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            let path = format!("{argument}[{index}]");
            let fault = match pair.split_once('=') {
                None => invalid(&path, "it has no value")
                    .expecting("KEY=VALUE; KEY= for an empty value"),
                Some((key, _)) if !is_key(key, private) => {
                    invalid(&path, "the key before the first = is not usable").expecting(
                        "KEY=VALUE, the key of letters, digits and _ (labels also . / -)",
                    )
                }
                Some((_, value)) if value.contains('\0') => {
                    invalid(&path, "the value has a NUL character").expecting("text")
                }
                Some((key, _)) if out.iter().any(|(k, _)| k == key) => {
                    invalid(&path, "the same key stands there twice").expecting("each key once")
                }
                Some((key, value)) => {
                    out.push((key.to_owned(), value.to_owned()));
                    continue;
                }
            };
            self.faults
                .push(if private { fault } else { fault.got(pair) });
        }
        out
    }

    /// Values are not repeated: whoever takes a URL for a context may have written a token into it.
    fn contexts(&mut self, contexts: &[String]) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = Vec::new();
        for (index, context) in contexts.iter().enumerate() {
            let path = format!("build_contexts[{index}]");
            let (name, value) = context.split_once('=').unwrap_or((context, ""));
            match named_context::check(name, value) {
                Ok(_) if out.iter().any(|(other, _)| other == name) => {
                    let twice = invalid(&path, "the same name stands there twice");
                    self.faults.push(twice.expecting("each name once").got(name));
                }
                Ok(value) => out.push((name.to_owned(), value)),
                Err(problem) => self.faults.push(
                    invalid(&path, problem)
                        .expecting("NAME=DIRECTORY below the root of the source, or NAME=docker-image://host/repository:tag"),
                ),
            }
        }
        out
    }

    fn tags(&mut self, tags: &[String]) {
        for (index, tag) in tags.iter().enumerate() {
            let path = format!("tags[{index}]");
            match PushReference::parse(tag) {
                Err(fault) => {
                    let mut shown = invalid(&path, fault.to_string())
                        .expecting("host/repository:tag")
                        .example("\"registry.example.com/team/api:1.2\"");
                    if !matches!(fault, ReferenceError::Credentials) {
                        shown = shown.got(tag);
                    }
                    self.faults.push(shown);
                }
                Ok(_) if tags.iter().take(index).any(|other| other == tag) => {
                    self.faults.push(
                        invalid(&path, "the same tag stands there twice")
                            .expecting("each tag once")
                            .got(tag),
                    );
                }
                Ok(_)
                    if let Some(allowed) = &self.rules.tags
                        && !allowed.iter().any(|prefix| begins(tag, prefix)) =>
                {
                    self.faults.push(
                        not_allowed(&path, "the operator does not allow pushes there")
                            .expecting(format!(
                                "a tag that begins with one of: {}",
                                listed(allowed)
                            ))
                            .got(tag),
                    );
                }
                Ok(_) => {}
            }
        }
    }

    fn tests(&mut self, tests: &[TestRequest]) -> Vec<PlanTest> {
        let mut out: Vec<PlanTest> = Vec::new();
        for (index, test) in tests.iter().enumerate() {
            let path = format!("tests[{index}]");
            let argv = match (&test.command, test.argv.as_slice()) {
                (Some(command), []) => vec!["/bin/sh".into(), "-c".into(), command.clone()],
                (None, argv @ [_, ..]) => argv.to_vec(),
                (Some(_), _) => {
                    self.faults.push(
                        invalid(&path, "it has command and argv at once")
                            .expecting("exactly one of command and argv"),
                    );
                    continue;
                }
                (None, []) => {
                    self.faults.push(
                        invalid(&path, "it has nothing to run")
                            .expecting("exactly one of command and argv")
                            .example(r#"{"name": "unit", "command": "make check"}"#),
                    );
                    continue;
                }
            };
            if argv.iter().any(|word| word.contains('\0')) {
                self.faults
                    .push(invalid(&path, "a word has a NUL character").expecting("text"));
            }
            let name = test
                .name
                .clone()
                .unwrap_or_else(|| format!("test-{}", index + 1));
            if out.iter().any(|other| other.name == name) {
                self.faults.push(
                    invalid(&format!("{path}.name"), "another test has this name")
                        .expecting("a name of its own")
                        .got(&name),
                );
            }
            let env = self.pairs(&format!("{path}.env"), &test.env, true);
            out.push(PlanTest {
                name,
                argv,
                env,
                timeout: test.timeout.unwrap_or(DEFAULT_TEST_TIMEOUT),
                stage: test.stage.clone(),
                secrets: test.secrets.clone(),
                outputs: test.outputs.clone(),
                report: test.report.clone(),
            });
        }
        out
    }

    /// What is handed over, of the image and of the tests.
    fn outputs(&mut self, request: &BuildRequest, profile: &str) {
        let mut paths = vec![("outputs".to_owned(), request.outputs.as_slice())];
        for (index, test) in request.tests.iter().enumerate() {
            paths.push((format!("tests[{index}].outputs"), &test.outputs));
            let report = test.report.as_slice();
            paths.push((format!("tests[{index}].report"), report));
        }
        let asked = paths
            .iter()
            .filter(|(argument, _)| argument.ends_with("outputs"));
        let count: usize = asked.map(|(_, paths)| paths.len()).sum();
        // Of a profile that does not exist nothing more is said.
        let is = |name: &String| name == profile;
        let hands_over = self.rules.outputs.iter().any(is) || !self.rules.profiles.iter().any(is);
        if count > 0 && !hands_over {
            let fault = match self.rules.outputs.as_slice() {
                [] => not_allowed("outputs", "this server has no place for outputs")
                    .expecting("none; the operator may set nomad.repository or limits.outputs_mb"),
                names => not_allowed(
                    "outputs",
                    format!("builds of the profile {profile} hand nothing over"),
                )
                .expecting(format!("a profile of: {}", names.join(", "))),
            };
            self.faults.push(fault);
        }
        if count > MAX_OUTPUTS {
            self.faults.push(
                invalid(
                    "outputs",
                    format!("with those of the tests there are {count}"),
                )
                .expecting(format!(
                    "at most {MAX_OUTPUTS}; a directory comes as one archive"
                )),
            );
        }
        for (argument, paths) in paths {
            for (index, path) in paths.iter().enumerate() {
                let is_image = argument == "outputs" && path == IMAGE;
                let twice = paths.iter().take(index).any(|other| other == path);
                let problem = output::path_fault(path).filter(|_| !is_image);
                let Some(problem) = problem.or(twice.then_some("it stands there twice")) else {
                    continue;
                };
                let at = match argument.ends_with("outputs") {
                    true => format!("{argument}[{index}]"),
                    false => argument.clone(),
                };
                let expected = match argument.as_str() {
                    "outputs" => "an absolute path in the image, or the word image",
                    _ => "an absolute path in the test's container",
                };
                self.faults
                    .push(invalid(&at, problem).expecting(expected).got(path));
            }
        }
    }

    fn secrets(&mut self, path: &str, secrets: &[String], profile: &str) {
        // Where there is no such profile, what any of them gives.
        let all = || self.rules.secrets.values().flatten().cloned().collect();
        let offered = self.rules.secrets.get(profile).cloned();
        let offered: Vec<String> = offered.unwrap_or_else(all);
        for (index, secret) in secrets.iter().enumerate() {
            if offered.contains(secret) {
                continue;
            }
            let others = self.rules.secrets.iter();
            let others: Vec<&str> = others
                .filter(|(_, names)| names.contains(secret))
                .map(|(name, _)| name.as_str())
                .collect();
            let problem = if others.is_empty() {
                "there is no secret of this name".to_owned()
            } else {
                format!(
                    "builds of the profile {profile} do not get it, those of {} do",
                    others.join(", ")
                )
            };
            let expected = if offered.is_empty() {
                "none: the operator offers no secrets".to_owned()
            } else {
                format!("one of: {}", offered.join(", "))
            };
            let near = suggest::nearest(secret, offered.iter().map(String::as_str));
            self.faults.push(
                invalid(&format!("{path}[{index}]"), problem)
                    .expecting(expected)
                    .suggesting(near)
                    .got(secret),
            );
        }
    }

    fn profile(&mut self, profile: Option<&str>) -> String {
        match profile {
            None => self
                .rules
                .profiles
                .first()
                .cloned()
                .unwrap_or_else(|| "default".into()),
            Some(profile) => {
                if !self.rules.profiles.iter().any(|known| known == profile) {
                    let near =
                        suggest::nearest(profile, self.rules.profiles.iter().map(String::as_str));
                    self.faults.push(
                        invalid("profile", "there is no profile of this name")
                            .expecting(format!("one of: {}", self.rules.profiles.join(", ")))
                            .suggesting(near)
                            .got(profile),
                    );
                }
                profile.to_owned()
            }
        }
    }
}

fn listed(allowed: &[String]) -> String {
    if allowed.is_empty() {
        "none at all".into()
    } else {
        allowed.join(", ")
    }
}

/// Whether `text` begins with `prefix` at a border, so that `host/team` allows neither `host/team2` nor
/// `host/team.2`, and `host` neither `host.example.com` nor another of its ports.
pub fn begins(text: &str, prefix: &str) -> bool {
    let Some(rest) = text.strip_prefix(prefix) else {
        return false;
    };
    let names_path = match prefix.split_once("://") {
        Some((_, rest)) => rest.contains(['/', ':']),
        None => prefix.contains('/'),
    };
    rest.is_empty()
        || prefix.ends_with(['/', ':'])
        || rest.starts_with('/')
        || names_path && (rest.starts_with(':') || rest == ".git" || rest.starts_with(".git/"))
}

fn is_key(key: &str, variable: bool) -> bool {
    !key.is_empty()
        && key.bytes().all(|b| {
            b.is_ascii_alphanumeric() || b == b'_' || (!variable && matches!(b, b'.' | b'/' | b'-'))
        })
        && !(variable && key.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            profiles: vec!["default".into(), "large".into()],
            secrets: BTreeMap::from([
                ("default".into(), vec!["npm-token".into()]),
                ("large".into(), vec!["npm-token".into(), "gpg".into()]),
            ]),
            tags: Some(vec!["r.example.com/team".into()]),
            paths: true,
            outputs: vec!["default".into(), "large".into()],
            ..Rules::default()
        }
    }

    fn faults(json: serde_json::Value) -> Vec<String> {
        let request: BuildRequest = serde_json::from_value(json).unwrap();
        validate(&request, &rules())
            .err()
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn secrets_belong_to_profiles() {
        let with = |profile: &str| {
            let source = serde_json::json!({"path": "/x"});
            faults(serde_json::json!({"source": source, "secrets": ["gpg"], "profile": profile}))
        };
        assert!(with("large").is_empty());
        let refused = with("default");
        assert_eq!(refused.len(), 1);
        let said = "builds of the profile default do not get it, those of large do";
        assert!(refused[0].contains(said), "{refused:?}");
        assert!(refused[0].contains("one of: npm-token"), "{refused:?}");
    }

    #[test]
    fn every_fault_is_found_at_once_and_private_values_are_not_repeated() {
        let all = faults(serde_json::json!({
            "source": {"git": "ext::sh -c id", "path": "/x", "ref": "main"},
            "containerfile": "../Containerfile",
            "build_args": ["TOKEN", "A=1", "A=2"],
            "tags": ["r.example.com/Team/x:1", "r.example.com/team2/x:1", "x"],
            "tests": [{"command": "a", "argv": ["b"]}, {}, {"command": "x", "env": ["s3cret"]}],
            "secrets": ["npm_token"], "profile": "larg", "cancel_previous": true,
            "outputs": ["image", "/app", "app", "/app"],
        }));
        let text = all.join("\n");
        assert_eq!(all.len(), 15, "{text}");
        for part in [
            "source: it has git and path at once",
            "build_args[0]",
            "the same key",
            "did you mean r.example.com/team/x?",
            "error[not_allowed] tags[1]",
            "tests[0]",
            "tests[1]",
            "tests[2].env[0]",
            "outputs[2]: it is not absolute",
            "outputs[3]: it stands there twice",
            "did you mean npm-token?",
            "did you mean large?",
            "cancel_previous",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("TOKEN") && !text.contains("s3cret"));
    }

    #[test]
    fn named_contexts_are_directories_of_the_source_and_images() {
        let source = serde_json::json!({"path": "/p", "subdir": "app"});
        let one = |context: &str| {
            faults(serde_json::json!({"source": source, "build_contexts": [context]}))
        };
        for fine in [
            "a=lib",
            "a=.",
            "x.y/z-1=lib/b c",
            "golang:1.22=lib",
            "a=./lib//x/.",
            "a=docker-image://h.example/x:1",
        ] {
            assert_eq!(one(fine), [""; 0], "{fine}");
        }
        for private in [
            "a=https://TOKEN@h.example/x",
            "a=docker-image://u:TOKEN@h.example/x",
        ] {
            assert!(!one(private).concat().contains("TOKEN"), "{private}");
        }
        for bad in [
            "lib",
            "-a=lib",
            "=lib",
            "a=",
            "a=/etc",
            "a=../x",
            "a=x/../..",
            "a=-x",
            "a=https://h/x.tar",
            "a=git://h/x",
            "a=docker-image://",
            "a=docker-image://alpine",
            "a=docker-image://u:p@h.example/x",
            "a=oci-layout:///x",
            "scratch=lib",
            "0=lib",
            "a b=lib",
            "a=x\ny",
        ] {
            let found = one(bad);
            assert!(
                found
                    .iter()
                    .all(|fault| fault.contains("build_contexts[0]")),
                "{bad}: {found:?}"
            );
            assert_eq!(found.len(), 1, "{bad}: {found:?}");
        }
        let plan = |contexts: &[&str]| {
            let json = serde_json::json!({"source": source, "build_contexts": contexts});
            validate(&serde_json::from_value(json).unwrap(), &rules())
                .unwrap()
                .plan
        };
        let below = |contexts: &[&str]| plan(contexts).snapshot_below().map(str::to_owned);
        assert_eq!(below(&[]).as_deref(), Some("app"));
        assert_eq!(
            below(&["a=docker-image://h.example/x:1"]).as_deref(),
            Some("app")
        );
        assert_eq!(below(&["a=lib"]), None);
    }

    #[test]
    fn reports_are_no_outputs_and_outputs_are_counted() {
        let test = |n: usize, more: serde_json::Value| {
            let mut test = serde_json::json!({"name": n.to_string(), "command": "x"});
            test.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            test
        };
        let with = |more: serde_json::Value| {
            let tests: Vec<_> = (0..40).map(|n| test(n, more.clone())).collect();
            faults(serde_json::json!({"source": {"path": "/x"}, "tests": tests}))
        };
        assert_eq!(
            with(serde_json::json!({"report": "/r.xml"})),
            Vec::<String>::new()
        );
        let many = with(serde_json::json!({"outputs": ["/o"]})).join("");
        assert!(
            many.contains("with those of the tests there are 40"),
            "{many}"
        );
    }

    #[test]
    fn hostile_git_arguments_are_refused() {
        for url in [
            "ext::sh -c id",
            "file:///etc",
            "--upload-pack=x",
            "/etc",
            "https://user:pw@host/x",
            "http://host/x",
        ] {
            let text = faults(serde_json::json!({"source": {"git": url}})).join("\n");
            assert!(
                text.starts_with("error[invalid_argument] source.git"),
                "{url}: {text}"
            );
            assert!(!text.contains("pw@"));
        }
        let text =
            faults(serde_json::json!({"source": {"git": "https://h.example/x", "ref": "-x"}}))
                .join("\n");
        assert!(
            text.starts_with("error[invalid_argument] source.ref"),
            "{text}"
        );
    }

    #[test]
    fn a_plain_request_becomes_a_plan_with_the_defaults() {
        let request: BuildRequest = serde_json::from_value(serde_json::json!({
            "source": {"files": [{"path": "Containerfile", "text": "FROM scratch"}]},
            "tests": [{"command": "true"}], "build_args": ["EMPTY="],
        }))
        .unwrap();
        let valid = validate(&request, &rules()).unwrap();
        let plan = valid.plan();
        assert_eq!(
            (plan.timeout, plan.queue_timeout, plan.profile.as_str()),
            (3600, 1800, "default")
        );
        assert_eq!(plan.tests[0].argv, ["/bin/sh", "-c", "true"]);
        assert_eq!(
            (plan.tests[0].name.as_str(), plan.tests[0].timeout),
            ("test-1", 600)
        );
        assert_eq!(plan.build_args, [("EMPTY".to_owned(), String::new())]);
        assert_eq!(valid.base, Base::Files);
    }

    #[test]
    fn beginnings_end_at_borders() {
        for (text, prefix) in [
            ("host/team/api:1", "host/team"),
            ("host/team:1", "host/team"),
            ("host:5000/api:1", "host:5000"),
            ("https://git.example.com/a/b.git", "https://git.example.com"),
            (
                "https://git.example.com/a/b.git",
                "https://git.example.com/a/b",
            ),
            ("https://git.example.com/ab", "https://git.example.com/"),
            ("host/team", "host/team"),
        ] {
            assert!(begins(text, prefix), "{text} {prefix}");
        }
        for (text, prefix) in [
            ("host/team2/api:1", "host/team"),
            ("host/team.other/api:1", "host/team"),
            ("registry.corp.evil.com/x:1", "registry.corp"),
            ("registry.corp:5000/x:1", "registry.corp"),
            (
                "https://git.example.com.evil.com/a",
                "https://git.example.com",
            ),
            ("https://git.example.com:8443/a", "https://git.example.com"),
            (
                "https://git.example.com/a/b.gitx",
                "https://git.example.com/a/b",
            ),
        ] {
            assert!(!begins(text, prefix), "{text} {prefix}");
        }
    }
}
