"""What builds leave behind on this machine: processes, mounts, files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

# Ids from here on are subordinate ones: files of a container's users.
FIRST_SUBORDINATE_ID = 65536


def processes_with(text: str) -> list[str]:
    """Command lines that contain the text."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in words:
            found.append(f"{entry.name}: {words}")
    return found


def mounts_below(directory: Path) -> list[str]:
    """Mount points in or below the directory, in this mount namespace."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in points if Path(point).is_relative_to(directory)]


def leftovers(state: Path, build_id: str) -> list[str]:
    """Working containers anywhere below the state directory, and container files of this build."""
    found = []
    for path in state.rglob("*containers.json"):
        text = path.read_text().strip()
        if text and json.loads(text):
            found.append(f"containers in {path}")
    for path in state.rglob(f"*{build_id}*"):
        for below in (path, *path.rglob("*")):
            if below.lstat().st_uid >= FIRST_SUBORDINATE_ID:
                found.append(str(below))
    return found


def remove_tree(directory: Path) -> None:
    """Removes a directory in which builds may have left files of subordinate users."""
    if os.geteuid() != 0:
        subprocess.run(["buildah", "unshare", "rm", "-rf", str(directory)], check=False)
    shutil.rmtree(directory, ignore_errors=True)


def cgroups_of(build_id: str) -> list[Path]:
    """Control groups of the build, in every hierarchy."""
    return list(Path("/sys/fs/cgroup").rglob(f"nomad-build-{build_id}"))


def limits_enforced(controller: str) -> bool:
    """Whether this host must enforce limits of this kind: hierarchies of version 1 that can be written to."""
    return os.access(Path("/sys/fs/cgroup") / controller / "cgroup.procs", os.W_OK)
