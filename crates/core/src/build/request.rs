//! What a caller asks for: the arguments of the tool `build`, already decoded.
//!
//! The doc comments are the descriptions in the tool's schema: they speak to an agent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest `wait` of any tool, in seconds.
pub const MAX_WAIT: u32 = 50;

/// Arguments of `build`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BuildRequest {
    /// What to build. Exactly one of git, path, context or files as its base; files may also lie on top of the other three. Required unless like is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = serde_json::json!({"path": "/home/me/project"}))]
    pub source: Option<SourceRequest>,
    /// Path of the Containerfile below the root of the source. Default: Containerfile, then Dockerfile. A path, never the text itself (text goes into source.files).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), example = &"docker/Containerfile")]
    pub containerfile: Option<String>,
    /// Stage to build. Default: the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub target: Option<String>,
    /// Build arguments (ARG), each KEY=VALUE. Default: none. Not for secrets: they stay in the image's history.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(max = 32_768)), example = ["VERSION=1.2"], extend("x-key-value" = true, "x-private" = true))]
    pub build_args: Vec<String>,
    /// Named build contexts for COPY --from=NAME, RUN --mount=from=NAME and FROM NAME, each NAME=DIRECTORY (below the root of the source, also beside subdir) or NAME=docker-image://IMAGE. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 1280)), example = ["shared=libs/shared"], extend("x-key-value" = true, "x-private" = true))]
    pub build_contexts: Vec<String>,
    /// Labels of the image, each KEY=VALUE. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(max = 32_768)), example = ["org.opencontainers.image.title=api"], extend("x-key-value" = true))]
    pub labels: Vec<String>,
    /// The build PUSHES to these references after all tests passed, overwriting what is there. Each a full host/repository:tag. Default: none, and nothing is pushed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 512)), example = ["registry.example.com/team/api:1.2"])]
    pub tags: Vec<String>,
    /// Tests that run in the built image before anything is pushed; a failing one stops the push. All run, even when one fails, unless fail_fast. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub tests: Vec<TestRequest>,
    /// What to hand over as files when it has ended: absolute paths in the final image (a directory comes as a tar archive), and the word image for the tested image as an OCI archive. Default: none. How to get them stands in outputs of status.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1024)), example = ["/usr/local/bin/app", "image"])]
    pub outputs: Vec<String>,
    /// Stop after the first failing test. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub fail_fast: Option<bool>,
    /// Names of secrets that the operator offers (see offers of status), for RUN --mount=type=secret,id=NAME. Default: none. Names only, never values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 64)))]
    pub secrets: Vec<String>,
    /// Class of machine or limits, one of those in offers of status. Default: default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub profile: Option<String>,
    /// Seconds the whole build may take from its start. Default: 3600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400), extend("default" = 3600))]
    pub timeout: Option<u32>,
    /// Seconds it may wait for capacity. Default: 1800.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400), extend("default" = 1800))]
    pub queue_timeout: Option<u32>,
    /// Execute every step anew instead of taking layers from a cache. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub no_cache: Option<bool>,
    /// A name of your choosing (letters, digits, . _ -), shown everywhere and a filter of status. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"), example = &"api")]
    pub name: Option<String>,
    /// End your older unfinished builds of the same name. Needs name. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub cancel_previous: Option<bool>,
    /// Retry token; reuse it only to repeat a call whose answer was lost: the same key and request within 24 hours give the same build. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub key: Option<String>,
    /// Id of an earlier build whose arguments are taken; those given here override them one by one. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub like: Option<String>,
    /// Check everything that can be checked without building, and build nothing. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub validate_only: Option<bool>,
    /// Seconds to wait for the end before answering, at most 50. Default: 0. Use 20 to 50 for one build, 0 to start several.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50), extend("default" = 0, "x-clamp" = true))]
    pub wait: Option<u32>,
}

/// Where the sources are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourceRequest {
    /// URL of a git repository: https://host/repo, ssh://git@host/repo or git@host:repo. Without credentials: they are the operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), example = &"https://git.example.com/team/api.git")]
    pub git: Option<String>,
    /// Branch, tag or full commit id; with git only. Default: the repository's default branch.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), example = &"main")]
    pub git_ref: Option<String>,
    /// Directory below the root of the repository, path or upload that becomes the build context. Default: the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub subdir: Option<String>,
    /// A patch to apply after the checkout, the output of git diff --binary REF; with git only. Untracked files are not in it: give them as files.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8_388_608), extend("x-private" = true))]
    pub patch: Option<String>,
    /// Absolute path of a directory that this server can read; its ignore file (.containerignore, .dockerignore) is honoured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), example = &"/home/me/project")]
    pub path: Option<String>,
    /// Digest or ticket of a context that was uploaded to this server over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub context: Option<String>,
    /// Files by their text, at most 200 and 262144 bytes in all: the whole source, or laid over the other source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), extend("x-path-map" = true))]
    pub files: Vec<FileRequest>,
}

/// One file by its text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRequest {
    /// Path below the root of the source.
    #[schemars(length(min = 1, max = 1024), example = &"Containerfile")]
    pub path: String,
    /// The file's text.
    #[schemars(length(max = 262_144), extend("x-private" = true))]
    pub text: String,
    /// Whether it is executable. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub executable: Option<bool>,
}

/// One test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TestRequest {
    /// Name of the test (letters, digits, . _ -). Default: test-1, test-2 and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"), example = &"unit")]
    pub name: Option<String>,
    /// Command line, run by /bin/sh -c in the image. Exactly one of command and argv.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536), example = &"make check", extend("x-argv" = "argv"))]
    pub command: Option<String>,
    /// Program and arguments, for images without a shell. Exactly one of command and argv.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 65_536)), example = ["/app", "--self-test"])]
    pub argv: Vec<String>,
    /// Environment of the test, each KEY=VALUE, on top of the image's. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(max = 32_768)), extend("x-key-value" = true, "x-private" = true))]
    pub env: Vec<String>,
    /// Seconds this test may take. Default: 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400), extend("default" = 600))]
    pub timeout: Option<u32>,
    /// Stage of the Containerfile in whose image it runs. Default: the final image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub stage: Option<String>,
    /// Names of secrets that the operator offers: this test finds them as files at /run/secrets/NAME. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 64)))]
    pub secrets: Vec<String>,
    /// Absolute paths that this test leaves behind in its container, to hand over as files, whether it passes or not. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1024)), example = ["/tmp/coverage"])]
    pub outputs: Vec<String>,
    /// Absolute path of a JUnit XML file that this test writes: its failing cases are told with file and line. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), example = &"/tmp/junit.xml")]
    pub report: Option<String>,
}

/// Arguments of `status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StatusRequest {
    /// Id of a build (or its build:// URI, or a unique beginning of the id). Default: none, and your builds are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), example = &"b7k2m-9xqdt")]
    pub build_id: Option<String>,
    /// Seconds to wait, at most 50. Default: 45 for an unfinished build with build_id, 0 for a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50), extend("x-clamp" = true))]
    pub wait: Option<u32>,
    /// What to wait for: finished (default), started, or change (of state, phase or step).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "finished"))]
    pub until: Option<Until>,
    /// Only builds of this name (in a list). Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub name: Option<String>,
    /// Only builds in these states (in a list); unfinished means queued and running. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<StateFilter>,
    /// Rows of a list, at most 50. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50), extend("default" = 10, "x-clamp" = true))]
    pub limit: Option<u32>,
    /// next_cursor of the list before, to read on. Default: the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub cursor: Option<String>,
}

/// What `status` waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The end.
    #[default]
    Finished,
    /// The start.
    Started,
    /// Any change of state, phase or step.
    Change,
}

/// A state, or `unfinished`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of State")]
pub enum StateFilter {
    Unfinished,
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
    Lost,
}

impl StateFilter {
    /// Whether a build in `state` is wanted.
    pub fn accepts(self, state: super::State) -> bool {
        use super::State;
        match self {
            StateFilter::Unfinished => !state.is_final(),
            StateFilter::Queued => state == State::Queued,
            StateFilter::Running => state == State::Running,
            StateFilter::Succeeded => state == State::Succeeded,
            StateFilter::Failed => state == State::Failed,
            StateFilter::Cancelled => state == State::Cancelled,
            StateFilter::TimedOut => state == State::TimedOut,
            StateFilter::Lost => state == State::Lost,
        }
    }
}

/// Arguments of `logs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsRequest {
    /// Id of the build (or its build:// URI, or a unique beginning of the id).
    #[schemars(length(min = 1, max = 128), example = &"b7k2m-9xqdt")]
    pub build_id: String,
    /// Where to read: start, end, or failure (around what failed). Default: failure for a failed build, else end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<LogFrom>,
    /// A line number: with from start or failure, what follows it; with from end, what precedes it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), example = &"1040")]
    pub cursor: Option<String>,
    /// Lines at most, up to 2000. Default: 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2000), extend("default" = 200, "x-clamp" = true))]
    pub lines: Option<u32>,
    /// Bytes of text at most, up to 30720. Default: 16000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 30_720), extend("default" = 16000, "x-clamp" = true))]
    pub max_bytes: Option<u32>,
    /// Only lines that match this regular expression (Rust syntax, no look-around). Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), example = &"error|warning")]
    pub grep: Option<String>,
    /// Whether grep ignores upper and lower case. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub ignore_case: Option<bool>,
    /// Lines shown before and after each match of grep. Default: 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50), extend("default" = 2))]
    pub context_lines: Option<u32>,
    /// Only lines of this phase. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<super::Phase>,
    /// Only lines of this step number of the phase build. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub step: Option<u32>,
    /// Only lines of the test of this name. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub test: Option<String>,
    /// Only lines of this stream: output (of the build's processes) or runner (its own words). Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// Whether each line tells when it was printed (UTC). Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub timestamps: Option<bool>,
    /// Seconds to wait for new lines when there are none yet (to follow), at most 50. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50), extend("default" = 0, "x-clamp" = true))]
    pub wait: Option<u32>,
}

/// Where `logs` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFrom {
    /// From the first line on.
    Start,
    /// The last lines.
    End,
    /// Around what failed.
    Failure,
}

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// What the build's processes printed (both of their streams, in their order).
    Output,
    /// The runner's own words.
    Runner,
}

/// Arguments of `kill`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KillRequest {
    /// Id of the build, in full (or its build:// URI).
    #[schemars(length(min = 1, max = 128), example = &"b7k2m-9xqdt")]
    pub build_id: String,
    /// Why; kept with the build. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub reason: Option<String>,
    /// Seconds to wait for the end, at most 50. Default: 15.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50), extend("default" = 15, "x-clamp" = true))]
    pub wait: Option<u32>,
}
