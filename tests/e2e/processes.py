"""The processes of builds: how they are found, whatever they are called, and what role each plays."""

from __future__ import annotations

import os
import pwd
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# A build's id where the product writes it: in the environment, and as the name of a directory.
_ID = re.compile(rb"(?:NOMAD_BUILD_ID=|/b/)([2-9bcdfghjkmnpqrstvwx]{5}-[2-9bcdfghjkmnpqrstvwx]{5})")
_BUILDAH = ("buildah", "buildah-in-a-user-namespace")
_BUILDAH_COMMANDS = ("build", "from", "images", "info", "pull", "push", "rm", "rmi", "run", "unshare")


@dataclass(frozen=True)
class Process:
    """A process as it was when it was looked at."""

    pid: int
    started: int
    """Clock ticks since boot; together with the pid it names one process for ever."""
    parent: int
    uid: int

    @property
    def key(self) -> tuple[int, int]:
        """Names it for ever."""
        return self.pid, self.started

    @property
    def argv(self) -> list[str]:
        """Its command line; empty when it is gone or a zombie."""
        return [word.decode(errors="replace") for word in _read(self.pid, "cmdline").split(b"\0")[:-1]]

    @property
    def role(self) -> str:
        """What it does for the build, in a word or two; empty when it is gone or a zombie."""
        return role(self.argv)

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        now = look(self.pid)
        return now is not None and now.key == self.key

    def kill(self) -> bool:
        """SIGKILL; whether it still was there."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def __str__(self) -> str:
        return f"{self.pid} (uid {self.uid}): {' '.join(self.argv)[:300]}"


def role(argv: list[str]) -> str:
    """The name of a role: the program, and which of its parts."""
    if not argv or not argv[0]:
        return ""
    program, words = os.path.basename(argv[0].split()[0]), argv[1:]
    if words[:1] in (["runner"], ["serve"]):
        # The product may be called anything.
        return " ".join(words[:2]) if words[0] == "runner" else "server"
    if program in _BUILDAH:
        inner = "inner " if program == _BUILDAH[1] else ""
        command = next((word for word in words if word in _BUILDAH_COMMANDS), "")
        return f"{inner}buildah {command}".strip()
    if program in ("runc", "crun"):
        command = next((word for word in words if word in ("create", "delete", "init", "kill", "start", "state")), "")
        return f"{program} {command}".strip()
    if program == "git":
        return "git remote-http" if "remote-http" in words else "git"
    return program


def look(pid: int) -> Process | None:
    """A process by its number; None when there is none, or a zombie."""
    stat = _read(pid, "stat")
    # The name in parentheses may hold anything.
    fields = stat[stat.rfind(b")") + 2 :].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    return Process(pid, int(fields[19]), int(fields[1]), uid)


def table() -> dict[int, Process]:
    """Every process by its number, without zombies."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process}


def below(roots: Iterable[int], processes: dict[int, Process]) -> Iterator[Process]:
    """These processes and all that descend from them."""
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    todo = [processes[pid] for pid in roots if pid in processes]
    seen = set()
    while todo:
        process = todo.pop()
        if process.pid not in seen:
            seen.add(process.pid)
            yield process
            todo += children.get(process.pid, [])


def of_build(build_id: str) -> list[Process]:
    """The processes of a build: they carry its id, or descend from one that does; oldest first."""
    processes, evidence = table(), Evidence()
    marked = [process.pid for process in processes.values() if build_id in evidence.ids(process)]
    return sorted(below(marked, processes), key=lambda process: process.key[::-1])


def job_of(build_id: str) -> Process | None:
    """The build's job."""
    jobs = (p for p in table().values() if (argv := p.argv)[1:3] == ["runner", "job"] and argv[-1].endswith(build_id))
    return next(jobs, None)


def tree(root: int) -> Iterator[Process]:
    """A process and all that descend from it, found quickly enough to catch what lives for milliseconds."""
    process = look(root)
    if process:
        yield process
    for task in _list(root, "task"):
        for child in _read(root, f"task/{task}/children").split():
            yield from tree(int(child))


def descriptors(pid: int) -> dict[int, str]:
    """What a process has open, by the number of the descriptor."""
    return {int(name): _link(pid, f"fd/{name}") for name in _list(pid, "fd")}


def running(*argv: str) -> list[Process]:
    """Processes with exactly this command line."""
    wanted = b"".join(os.fsencode(word) + b"\0" for word in argv)
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and _read(int(name), "cmdline") == wanted]
    return [process for pid in pids if (process := look(pid))]


class Evidence:
    """What processes carry of builds; reads each mount table once."""

    def __init__(self) -> None:
        self._tables: dict[str, bytes] = {}

    def text(self, process: Process) -> bytes:
        """Its environment, command line, working directory, and the mounts that are not here, too."""
        pid = process.pid
        parts = [_read(pid, "environ"), _read(pid, "cmdline"), os.fsencode(_link(pid, "cwd")), self._mounts(pid)]
        return b"\n".join(parts)

    def ids(self, process: Process) -> set[str]:
        """Builds that it names."""
        return {found.decode() for found in _ID.findall(self.text(process))}

    def _mounts(self, pid: int) -> bytes:
        """What is mounted there and not here: a new mount namespace begins as a copy of the one it is made in."""
        namespace = _link(pid, "ns/mnt")
        if namespace == _link(os.getpid(), "ns/mnt"):
            return b""
        if namespace not in self._tables:
            self._tables[namespace] = b"\n".join(_mounted(pid) - _mounted(os.getpid()))
        return self._tables[namespace]


def _mounted(pid: int) -> set[bytes]:
    """Mounts as proc_pid_mountinfo(5) tells them, without what differs in a copy: their numbers, and with whom they share."""
    lines = (line.partition(b" - ") for line in _read(pid, "mountinfo").splitlines())
    return {b" ".join([*here.split()[2:6], source]) for here, _, source in lines}


def namespaces(processes: Iterable[Process]) -> dict[str, list[Process]]:
    """Namespaces by their names, such as net:[4026531833], and who lives in them."""
    found: dict[str, list[Process]] = {}
    for process in processes:
        for kind in ("mnt", "pid", "net", "user", "ipc", "uts", "cgroup"):
            if name := _link(process.pid, f"ns/{kind}"):
                found.setdefault(name, []).append(process)
    return found


def uids_of(owners: set[int]) -> list[range]:
    """These users' uids, subordinate ones included."""
    found = [range(uid, uid + 1) for uid in owners]
    names = {user.pw_name for user in pwd.getpwall() if user.pw_uid in owners} | set(map(str, owners))
    for line in Path("/etc/subuid").read_text().splitlines():
        name, first, count = line.split(":")
        if name in names:
            found.append(range(int(first), int(first) + int(count)))
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _list(pid: int, name: str) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/{name}")
    except OSError:
        return []


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""
