//! What the operator decided for the runner. Nothing secret: credentials are files beside it.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::config::{Isolation, Network};

/// Settings of one runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The Buildah to use: a path, or a name in the search path.
    pub buildah: String,
    /// Directory for what is shared between builds of one user: base images, the probe's answer.
    pub cache: PathBuf,
    /// `host:port` of registries that speak plain HTTP.
    pub insecure: Vec<String>,
    /// Certificates to trust for registries, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether git may fetch over plain HTTP.
    pub git_allow_http: bool,
    /// Isolation of RUN.
    pub isolation: Isolation,
    /// Network of foreign code.
    pub network: Network,
    /// Networks closed to foreign code, besides those that always are.
    pub closed: Vec<IpNet>,
    /// Whether nothing in the sandbox may gain privileges by starting a program.
    pub no_new_privileges: bool,
    /// Limits.
    pub limits: Limits,
    /// Search path and proxies for the phase source, from the operator's environment.
    pub environment: Vec<(String, String)>,
}

/// Limits of one build.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes of the sources.
    pub context_bytes: u64,
    /// Files and directories of the sources.
    pub context_entries: u64,
    /// Processes and threads at the same time.
    pub processes: u64,
    /// Bytes of memory of all processes together, if that is limited.
    pub memory_bytes: Option<u64>,
    /// Processors whose time may be used, if that is limited.
    pub cpus: Option<f64>,
    /// Bytes that one build may write to the disk.
    pub disk_bytes: u64,
    /// Files and directories that one build may make.
    pub files: u64,
    /// Bytes of one file that foreign code writes.
    pub file_bytes: u64,
    /// Bytes that it may hand over as outputs.
    pub outputs_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            log_bytes: 256 << 20,
            context_bytes: 2 << 30,
            context_entries: 200_000,
            processes: 4096,
            memory_bytes: None,
            cpus: None,
            disk_bytes: 20 << 30,
            files: 2_000_000,
            file_bytes: 8 << 30,
            outputs_bytes: 2 << 30,
        }
    }
}

impl Settings {
    /// Whether the registry of an image reference speaks plain HTTP.
    pub fn is_insecure(&self, reference: &str) -> bool {
        let host = reference.split('/').next().unwrap_or_default();
        self.insecure.iter().any(|insecure| insecure == host)
    }
}
