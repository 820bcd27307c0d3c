//! On a host with systemd, the job leaves the server's service, so that stopping or restarting the
//! service does not end it (systemd.kill(5): `control-group` kills all processes of the unit).

use std::path::Path;
use std::process::{Command, Stdio};

use crate::build::BuildId;

/// Moves this process into a scope of its own, where there is a systemd that allows it.
pub fn enter(id: &BuildId) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    let manager = if rustix::process::geteuid().is_root() {
        "--system"
    } else {
        "--user"
    };
    let pid = std::process::id().to_string();
    let scope = format!("nomad-build-{id}.scope");
    // org.freedesktop.systemd1(5): StartTransientUnit(name, mode, properties, aux) adopts PIDs.
    // What is below a delegated cgroup is this job's own: the cgroup of its build.
    let moved = Command::new("busctl")
        .args([
            manager,
            "--quiet",
            "call",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
        ])
        .args([
            scope.as_str(),
            "fail",
            "2",
            "PIDs",
            "au",
            "1",
            pid.as_str(),
            "Delegate",
            "b",
            "true",
            "0",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !moved.is_ok_and(|status| status.success()) {
        tracing::warn!(
            "this job could not leave the server's systemd unit; restarting the unit may end it"
        );
    }
}
