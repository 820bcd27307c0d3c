"""A Debian whose first process is systemd, in namespaces of its own on this machine, with this machine's network."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from helpers import unique

BOOT = r"""
set -euo pipefail
root=$1
shift
for cgroup in "$@"; do echo $$ >"$cgroup/cgroup.procs"; done
exec unshare --fork --kill-child --pid --mount --uts --ipc --cgroup bash -euc '
    # What systemd expects of a container manager: https://systemd.io/CONTAINER_INTERFACE
    mount --bind "$0" "$0"
    cd "$0"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs tmpfs run
    mount -t tmpfs -o mode=755 tmpfs dev
    mkdir dev/net dev/pts dev/shm
    for node in null zero full random urandom tty net/tun; do
        touch dev/$node
        mount --bind /dev/$node dev/$node
    done
    mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
    mount -t tmpfs tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    touch dev/console
    hostname machine
    mkdir -p mnt/outside
    pivot_root . mnt/outside
    umount -l /mnt/outside
    exec env -i container=tests PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --log-target=journal
' "$root"
"""


class SystemdMachine:
    """What runs on it is seen by its own processes alone."""

    def __init__(self, init: int) -> None:
        self._init = init

    def run(self, script: str) -> str:
        """Runs a script of bash as root, and returns what it printed."""
        inside = ["nsenter", f"--target={self._init}", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "env", "-i"]
        command = [*inside, "PATH=/usr/sbin:/usr/bin", "HOME=/root", "bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{script}\n{done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@contextmanager
def systemd_machine(tar: Path, directory: Path) -> Iterator[SystemdMachine]:
    """Boots a Debian of a tar archive, unpacked to a directory that is not there."""
    directory.mkdir()
    subprocess.run(["tar", "-C", directory, "--extract", "--numeric-owner", "--file", tar], check=True)
    (directory / "etc/hosts").write_text("127.0.0.1 localhost machine\n")
    with ExitStack() as stack:
        cgroups = [stack.enter_context(_cgroup(parent)) for parent in _hierarchies()]
        command = ["bash", "-c", BOOT, "boot", directory, *cgroups]
        boot = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        stack.callback(boot.wait)
        stack.callback(boot.kill)
        init = _first_process(boot)
        machine = SystemdMachine(init)
        # "degraded" where a unit wants what such a machine has not, as a console.
        machine.run("state=$(systemctl is-system-running --wait) || [[ $state == degraded ]]")
        yield machine


def _first_process(boot: subprocess.Popen[bytes]) -> int:
    """Waits for systemd and returns its number outside."""
    deadline = time.monotonic() + 60
    while True:
        # unshare has one child.
        with suppress(OSError, ValueError):
            init = int(Path(f"/proc/{boot.pid}/task/{boot.pid}/children").read_text())
            if Path(f"/proc/{init}/root/run/systemd/private").is_socket():
                return init
        assert boot.poll() is None, boot.stdout.read() if boot.stdout else ""
        assert time.monotonic() < deadline, "systemd has not begun within 60 s"
        time.sleep(0.05)


def _hierarchies() -> list[Path]:
    """Where cgroups can be made: each controller of version 1, its named hierarchies, and version 2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


@contextmanager
def _cgroup(parent: Path) -> Iterator[Path]:
    """A cgroup of the machine's own, which is the root of what it sees."""
    group = parent / f"nomad-build-machine-{unique()}"
    group.mkdir()
    # Without these nothing can be put into it (Documentation/admin-guide/cgroup-v1/cpusets.rst).
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).exists() and not (group / name).read_text().strip():
            (group / name).write_text((parent / name).read_text())
    try:
        yield group
    finally:
        deadline = time.monotonic() + 30
        while any(_processes(found) for found in [group, *group.glob("**/")]):
            assert time.monotonic() < deadline, f"processes are left in {group}"
            time.sleep(0.05)
        for found in sorted(group.glob("**/"), reverse=True):
            found.rmdir()


def _processes(group: Path) -> str:
    with suppress(OSError):
        return (group / "cgroup.procs").read_text().strip()
    return ""
