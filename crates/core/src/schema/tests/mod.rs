//! Arguments like those of the real tools, and what is shared between the tests.
#![expect(
    dead_code,
    reason = "the sample types are described and filled, not used"
)]

mod decoding;
mod faults;
mod generated;
mod props;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::*;

/// Builds an image.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BuildArgs {
    /// Where the source
    /// comes   from.
    #[schemars(extend("examples" = [{"git": "https://example.org/a.git"}]))]
    pub source: Option<Source>,
    /// Path below the context.
    #[schemars(length(max = 256))]
    pub containerfile: Option<String>,
    /// Build arguments, `KEY=VALUE`.
    #[serde(default)]
    #[schemars(length(max = 8), inner(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*=")))]
    #[schemars(extend("x-key-value" = true, "x-private" = true))]
    pub build_args: Vec<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub tests: Vec<Test>,
    /// Seconds.
    #[serde(default = "hour")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout: u32,
    #[serde(default)]
    pub no_cache: bool,
    #[schemars(range(max = 50), extend("x-clamp" = true))]
    pub wait: Option<u64>,
    pub ratio: Option<f64>,
    pub retries: Option<u32>,
}

fn hour() -> u32 {
    3600
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Source {
    pub git: Option<String>,
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    #[serde(default)]
    #[schemars(length(max = 4), extend("x-path-map" = true))]
    pub files: Vec<File>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct File {
    pub path: String,
    #[schemars(length(max = 1000))]
    pub text: String,
    #[serde(default)]
    pub executable: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct Test {
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    #[schemars(example = &"unit")]
    pub name: String,
    #[schemars(extend("x-argv" = "argv"))]
    pub command: Option<String>,
    #[schemars(length(min = 1))]
    pub argv: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(extend("x-key-value" = true, "x-private" = true))]
    pub env: Vec<String>,
    #[serde(default)]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout: Option<u64>,
    pub stage: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The build has ended.
    Finished,
    /// It runs.
    Started,
    Change,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Queued,
    Running,
    Failed,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct StatusArgs {
    pub build_id: Option<String>,
    /// When to answer.
    pub until: Option<Until>,
    #[serde(default)]
    pub state: Vec<State>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub struct KillArgs {
    pub build_id: String,
    pub reason: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    pub build_id: String,
    pub size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner: Option<Inner>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Inner {
    pub seconds: f64,
}

const SYNONYMS: Synonyms<'static> = &[
    ("dockerfile", "containerfile"),
    ("image", "tags"),
    ("repo", "source.git"),
    ("url", "source.git"),
    ("id", "build_id"),
];

fn build() -> Map<String, Value> {
    tool_schema::<BuildArgs>()
}

fn status() -> Map<String, Value> {
    tool_schema::<StatusArgs>()
}

/// Decodes and proves that the value fits the published schema and the Rust type.
fn accept<T: serde::de::DeserializeOwned + JsonSchema>(raw: Value) -> Decoded {
    let schema = tool_schema::<T>();
    let decoded = decode(&schema, raw.clone(), SYNONYMS).unwrap_or_else(|f| panic!("{raw}\n{f}"));
    let validator = jsonschema::validator_for(&published(&schema).into()).unwrap();
    assert!(
        validator.is_valid(&decoded.value),
        "{raw} → {}",
        decoded.value
    );
    serde_json::from_value::<T>(decoded.value.clone()).unwrap();
    decoded
}

fn refuse(schema: &Map<String, Value>, raw: Value) -> Faults {
    let shown = raw.to_string();
    let short: String = shown.chars().take(200).collect();
    decode(schema, raw, SYNONYMS).expect_err(&short)
}
