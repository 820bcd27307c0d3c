"""What builds leave behind on this machine: processes, namespaces, mounts, cgroups, files."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from processes import Evidence, Process, below, namespaces, table, uids_of

ORDINARY_USER = "nomad-build-test"
"""What scripts/setup.sh makes for tests that run as root, to run servers that do not."""
# Ids from here on are subordinate ones: files of a container's users.
FIRST_SUBORDINATE_ID = 65536
# What the directory of a build that has ended consists of.
_KEPT = {
    "config.json",
    "job.lock",
    "log.ndjson",
    "plan.json",
    "record.json",
    "record.lock",
    "request.json",
    "runner.log",
    "settings.json",
}
_SCRATCH = ("/tmp", "/var/tmp", "/run", "/run/user", "/run/lock", "/dev/shm", "/dev/mqueue")
_CGROUPS = Path("/sys/fs/cgroup")
_OURS = re.compile("buildah|conmon|container|crun|libpod|nomad|overlay|podman|runc|storage")


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


def processes_left(text: str, seconds: float = 10) -> list[str]:
    """Those that are there; a job alone may take so long to tidy up when its build has ended."""
    deadline = time.monotonic() + seconds
    while (found := processes_with(text)) and all(" runner job " in line for line in found):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return found


def mounts_below(directory: Path) -> list[str]:
    """Mount points in or below the directory, in this mount namespace."""
    return [point for point, _ in _mounts() if Path(point).is_relative_to(directory)]


def leftovers(state: Path, *build_ids: str) -> list[str]:
    """Working containers anywhere below the state directory, and container files of these builds."""
    found = []
    for path in _tree(state):
        if path.endswith("containers.json") and _has_entries(Path(path)):
            found.append(f"containers in {path}")
        inside = path.removeprefix(str(state))
        if any(build_id in inside for build_id in build_ids) and _owner(Path(path)) >= FIRST_SUBORDINATE_ID:
            found.append(path)
    return found


def private_dirs(build_id: str) -> list[Path]:
    """Where credentials and secrets of a build are, and the lock beside them."""
    places = ("/run", "/run/user/*", "/dev/shm")
    found = (Path("/").glob(f"{place[1:]}/nomad-build*/{build_id}*") for place in places)
    return [path for paths in found for path in paths]


def _tree(directory: Path) -> Iterator[str]:
    """Everything below the directory; what vanishes meanwhile is passed over (unlike by Path.rglob)."""
    for at, directories, names in os.walk(directory):
        yield from (f"{at}/{name}" for name in (*directories, *names))


def _has_entries(file: Path) -> bool:
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        return False
    return bool(text and json.loads(text))


def _owner(path: Path) -> int:
    """Uid of the owner; -1 if it vanishes meanwhile."""
    try:
        return path.lstat().st_uid
    except FileNotFoundError:
        return -1


def remove_tree(directory: Path) -> None:
    """Removes a directory in which builds may have left files of subordinate users."""
    if os.geteuid() != 0:
        subprocess.run(["buildah", "unshare", "rm", "-rf", str(directory)], check=False)
    shutil.rmtree(directory, ignore_errors=True)


def cgroups_of(build_id: str) -> list[Path]:
    """Control groups of the build, in every hierarchy."""
    return [Path(path) for path in _tree(Path("/sys/fs/cgroup")) if path.endswith(f"/nomad-build-{build_id}")]


def limits_enforced(controller: str) -> bool:
    """Whether this host must enforce limits of this kind: hierarchies of version 1 that can be written to."""
    return os.access(Path("/sys/fs/cgroup") / controller / "cgroup.procs", os.W_OK)


class Before:
    """This machine before the builds of a server; `left` tells what they then have left.

    Others may run builds on this machine meanwhile: what names a build of theirs, or descends from a process that was
    there before, is not counted. A namespace counts as long as a process lives in it or a mount holds it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        processes = table()
        self._processes = {process.key for process in processes.values()}
        self._namespaces = namespaces(processes.values())
        self._mounts = set(_mounts())
        self._cgroups = set(_cgroups())
        self._scratch = set(_scratch())

    def left(self) -> list[str]:
        """What is left, in words. Every build must have ended."""
        ids = {path.name for path in (self._directory / "state/b").glob("*")}
        return [*self._living(ids), *self._kernel(ids), *self._files(ids)]

    def _living(self, ids: set[str]) -> Iterator[str]:
        processes, evidence = table(), Evidence()
        uids = self._uids()
        # The servers themselves are children of the tests; so are the tests' own helpers.
        own = {process.pid for process in processes.values() if process.parent == os.getpid()}
        new = [p for p in processes.values() if p.key not in self._processes and p.pid not in own]
        others = set(self._of_others(processes, evidence, ids))
        # Attacks that nothing stops leave what they like, as this user; a server of ours may be that, too.
        bystanders = [uid for uid in uids_of(_unprotected()) if uid not in uids]
        strange = [p for p in new if p.pid not in others and not any(p.uid in uid for uid in bystanders)]
        for process in new:
            names_us = ids & evidence.ids(process) or os.fsencode(self._directory) in evidence.text(process)
            of_build_user = any(process.uid in uid for uid in uids) and process in strange
            # What ended since the look at the table is not left.
            if (names_us or of_build_user) and process.alive():
                yield f"process {process}"
        for name, holders in namespaces(strange).items():
            # The kernel gives the number of a namespace that is gone to the next one.
            was_there = any(p.alive() for p in self._namespaces.get(name, ()))
            if not was_there and (alive := [p for p in holders if p.alive()]):
                yield f"namespace {name} of process {alive[0]}"

    def _uids(self) -> list[range]:
        """Uids that builds of this server run with, other than the tests' own."""
        owners = {path.stat().st_uid for path in (self._directory / "state/cache").glob("*")}
        return [uids for uids in uids_of(owners) if os.getuid() not in uids]

    def _of_others(self, processes: dict[int, Process], evidence: Evidence, ids: set[str]) -> Iterator[int]:
        """Processes of other tests on this machine."""
        roots = [p.pid for p in processes.values() if (named := evidence.ids(p)) and not named & ids]
        # Orphans descend from init alone, ours and theirs; and the tests were there before their builds.
        there = {p.pid for p in processes.values() if p.key in self._processes}
        roots += there - {1, os.getpid(), *_ancestors(os.getpid(), processes)}
        return (process.pid for process in below(roots, processes))

    def _kernel(self, ids: set[str]) -> Iterator[str]:
        for point, kind in set(_mounts()) - self._mounts:
            if Path(point).is_relative_to(self._directory) or kind == "nsfs":
                yield f"mount {point} ({kind})"
        for cgroup in set(_cgroups()) - self._cgroups:
            named = _named(str(cgroup))
            # A cluster makes its own for what it runs.
            of_nomad = {"nomad", "nomad.slice"} & set(cgroup.parts)
            if named & ids or (not named and not of_nomad and _OURS.search(str(cgroup))):
                yield f"cgroup {cgroup}"

    def _files(self, ids: set[str]) -> Iterator[str]:
        state = self._directory / "state"
        for build_id in ids:
            yield from (f"file {path}" for path in (state / "b" / build_id).iterdir() if path.name not in _KEPT)
            yield from (f"private {path}" for path in private_dirs(build_id))
        yield from (f"staged {path}" for path in (state / "staging").glob("*"))
        yield from (f"ticket {path}" for path in (state / "queue").glob("[0-9]*"))
        yield from (f"container of {path}" for path in leftovers(state, "-"))
        for path, owner in set(_scratch()) - self._scratch:
            if any(owner in uid for uid in self._uids()) and path.exists():
                yield f"scratch {path}"


def _unprotected() -> set[int]:
    """Whom the attacks run as where nothing stops them (`bait.USER`), as root alone."""
    return {user.pw_uid for user in pwd.getpwall() if user.pw_name == ORDINARY_USER and user.pw_uid != os.getuid()}


def _ancestors(pid: int, processes: dict[int, Process]) -> Iterator[int]:
    while pid in processes:
        pid = processes[pid].parent
        yield pid


def _named(text: str) -> set[str]:
    return set(re.findall("[2-9bcdfghjkmnpqrstvwx]{5}-[2-9bcdfghjkmnpqrstvwx]{5}", text))


def _mounts() -> Iterator[tuple[str, str]]:
    """Mount points and types of file systems of this mount namespace."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, source = line.partition(" - ")
        yield place.split()[4], source.split()[0]


def _cgroups() -> Iterator[Path]:
    # Directories vanish while they are walked through.
    for directory, names, _ in os.walk(_CGROUPS, onerror=lambda _: None):
        yield from (Path(directory, name) for name in names)


def _scratch() -> Iterator[tuple[Path, int]]:
    """What looks like Buildah's in the directories that everybody may write to, and at homes; and whose it is."""
    homes = (user.pw_dir for user in pwd.getpwall() if user.pw_name.startswith("nomad-build"))
    for directory in map(Path, (*_SCRATCH, *homes)):
        for path in directory.glob("*"):
            of_the_tests = path.name.startswith("nomad-build-")
            if (_OURS.search(path.name) and not of_the_tests) or str(directory) not in _SCRATCH:
                try:
                    yield path, path.lstat().st_uid
                except OSError:
                    continue
