//! A build to be submitted.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nomad_build::backend::{Claim, Staged, Submission};
use nomad_build::build::plan::PlanTest;
use nomad_build::build::record::RECORD_VERSION;
use nomad_build::build::scope::Scopes;
use nomad_build::build::status::SourceStatus;
use nomad_build::build::{BuildId, Plan, PlanSource, Record};
use nomad_build::context::{ContextFile, Extent, Limits, snapshot_dir};

const BUSYBOX: &str = "/bin/busybox";

/// A build that is asked for. `@ID@` in its scripts becomes its id, by which `Lab::remains` knows
/// processes of foreign code.
#[derive(Clone)]
pub struct Order {
    pub id: BuildId,
    containerfile: Option<String>,
    git: Option<String>,
    tags: Vec<String>,
    tests: Vec<PlanTest>,
    timeout: u32,
    queue_timeout: u32,
    profile: String,
    busybox: bool,
    claims: Vec<Claim>,
    principal: String,
}

/// Runs a shell script in the image.
fn shell(id: &BuildId, script: &str) -> Vec<String> {
    let script = format!("export OWNER={id}; {script}");
    [BUSYBOX, "sh", "-c", &script].map(str::to_owned).to_vec()
}

impl Order {
    pub fn containerfile(text: impl Into<String>) -> Self {
        Self {
            id: BuildId::from_random(fastrand::u128(..).to_le_bytes()),
            containerfile: Some(text.into()),
            git: None,
            tags: Vec::new(),
            tests: Vec::new(),
            timeout: 300,
            queue_timeout: 300,
            profile: "default".into(),
            busybox: true,
            claims: Vec::new(),
            principal: "tester".into(),
        }
    }

    /// Executes these scripts, a step each.
    pub fn run(scripts: &[&str]) -> Self {
        let mut order = Self::containerfile("FROM scratch\nCOPY busybox /bin/busybox\n");
        for script in scripts {
            let argv = serde_json::to_string(&shell(&order.id, script)).unwrap();
            let text = order.containerfile.get_or_insert_default();
            text.push_str(&format!("RUN {argv}\n"));
        }
        order
    }

    /// Asked for by another than usual.
    pub fn by(self, principal: &str) -> Self {
        Self {
            principal: principal.into(),
            ..self
        }
    }

    /// An image without a RUN.
    pub fn quick() -> Self {
        Self::run(&[])
    }

    /// An image of one small file: its sources fit everywhere.
    pub fn tiny() -> Self {
        let mut order = Self::containerfile("FROM scratch\nCOPY Containerfile /\n");
        order.busybox = false;
        order
    }

    /// Says `ready` in the phase build and then goes on for longer than any test.
    pub fn endless() -> Self {
        Self::run(&[ENDLESS])
    }

    pub fn without_containerfile() -> Self {
        Self {
            containerfile: None,
            ..Self::quick()
        }
    }

    pub fn from_git(url: String) -> Self {
        Self {
            git: Some(url),
            ..Self::quick()
        }
    }

    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    pub fn test(self, name: &str, script: &str) -> Self {
        self.test_within(name, script, 300)
    }

    pub fn test_within(mut self, name: &str, script: &str, timeout: u32) -> Self {
        self.tests.push(PlanTest {
            name: name.into(),
            argv: shell(&self.id, script),
            env: Vec::new(),
            timeout,
            stage: None,
            secrets: Vec::new(),
            outputs: Vec::new(),
            report: None,
        });
        self
    }

    pub fn timeout(mut self, seconds: u32) -> Self {
        self.timeout = seconds;
        self
    }

    pub fn queue_timeout(mut self, seconds: u32) -> Self {
        self.queue_timeout = seconds;
        self
    }

    pub fn profile(mut self, name: &str) -> Self {
        self.profile = name.into();
        self
    }

    pub fn claim(mut self, name: &str, unfinished_only: bool) -> Self {
        self.claims.push(Claim {
            name: name.into(),
            lasts: 3_600_000,
            unfinished_only,
        });
        self
    }

    /// With its snapshot below `staging`.
    pub fn submission(self, staging: &Path) -> Submission {
        let submitted = later_than_all();
        let snapshot = self.git.is_none().then(|| {
            let staged = Staged::create(staging, &format!("context-{}.tar", self.id)).unwrap();
            let digest = self.write(staged.file());
            (staged, digest)
        });
        let source = match (&self.git, &snapshot) {
            (Some(url), _) => PlanSource::Git {
                url: url.clone(),
                git_ref: None,
                patch: None,
                files: Vec::new(),
            },
            (None, snapshot) => PlanSource::Snapshot {
                digest: snapshot.as_ref().unwrap().1.clone(),
                origin: "path".into(),
            },
        };
        let tests = self.tests.iter().map(|test| test.name.clone()).collect();
        Submission {
            config: None,
            record: Record {
                v: RECORD_VERSION,
                id: self.id.clone(),
                principal: self.principal.clone(),
                name: None,
                profile: self.profile.clone(),
                request_digest: format!("digest of {}", self.id),
                source: SourceStatus {
                    git: self.git.clone(),
                    ..SourceStatus::default()
                },
                tags: self.tags.clone(),
                tests,
                timeout: self.timeout,
                queue_timeout: self.queue_timeout,
                submitted,
                starts: 0,
                began: None,
                cancel: None,
                commit: None,
                end: None,
            },
            plan: Plan {
                v: Plan::version(&[]),
                build_id: self.id.clone(),
                source,
                subdir: None,
                shown_below: None,
                containerfile: None,
                target: None,
                build_args: Vec::new(),
                build_contexts: Vec::new(),
                labels: Vec::new(),
                tags: self.tags,
                tests: self.tests,
                outputs: Vec::new(),
                fail_fast: false,
                secrets: Vec::new(),
                no_cache: false,
                scopes: Scopes::of_files("tester", None),
                profile: self.profile,
                timeout: self.timeout,
                queue_timeout: self.queue_timeout,
                submitted: submitted / 1000,
            },
            request: serde_json::json!({"name": self.id.as_str(), "tags": 1}),
            snapshot: snapshot.map(|(staged, _)| staged),
            claims: self.claims,
        }
    }

    /// Writes the sources as a tar; returns its digest.
    fn write(&self, out: &File) -> String {
        let dir = tempfile::tempdir().unwrap();
        if self.busybox {
            std::fs::copy(BUSYBOX, dir.path().join("busybox"))
                .expect("busybox is not there: scripts/setup.sh installs busybox-static");
        }
        let file = self.containerfile.as_ref().map(|text| ContextFile {
            path: "Containerfile".into(),
            text: text.clone(),
            executable: false,
        });
        let limits = Limits {
            bytes: 64 << 20,
            entries: 100,
        };
        snapshot_dir(
            dir.path(),
            &Extent::default(),
            None,
            file.as_slice(),
            limits,
            out,
        )
        .unwrap()
        .digest
    }
}

/// A script that says `ready` and does not end.
pub const ENDLESS: &str = "echo ready; sleep 1000";

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// The time, but never the same twice, so that the order of acceptance is known.
fn later_than_all() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = now_ms();
    let last = LAST
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
            Some(now.max(last + 1))
        })
        .unwrap();
    now.max(last + 1)
}
