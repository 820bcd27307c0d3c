"""The borders within a build at which ends are decided, and how a build is held at each."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio
from endings import Trial, events, record
from helpers import wait_for
from holding_proxy import HoldingProxy
from server import Server

REACHED = 90.0
"""Seconds that a build may take to a border."""


@dataclass
class Held:
    """A build of which the next step waits; it goes on when this is released."""

    server: Server
    trial: Trial
    reached: Callable[[], bool]
    release: Callable[[], object]
    blocked: Callable[[], int] = lambda: 0
    """How many kills cannot answer before this is released."""

    async def wait(self) -> None:
        """Waits until the build is there."""
        deadline = time.monotonic() + REACHED
        while not self.reached():
            late = time.monotonic() > deadline or "end" in record(self.server, self.trial.build_id)
            assert not late, f"not reached: {events(self.server, self.trial.build_id)}"
            await anyio.sleep(0.002)

    async def end_by(self, kills: Callable[[], Awaitable[object]]) -> None:
        """Lets the build go on once the kills have been answered, or wait for nothing but that."""
        answered = anyio.Event()

        async def kill() -> None:
            await kills()
            answered.set()

        async with anyio.create_task_group() as group:
            group.start_soon(kill)
            await wait_for(lambda: answered.is_set() or self.blocked() > 0, "answers to kills")
            self.release()


@dataclass(frozen=True)
class Border:
    """A border, and whether a build that is there has passed its commit point."""

    name: str
    hold: Callable[[Server, HoldingProxy, Trial], Held]
    committed: bool


def _phase_ended(phase: str) -> Callable[[Server, HoldingProxy, Trial], Held]:
    def hold(server: Server, proxy: HoldingProxy, trial: Trial) -> Held:
        # Nothing holds it here: what follows is only kept from being over too soon.
        upload = proxy.hold("HEAD|POST", f"/{trial.repository}/blobs/")

        def reached() -> bool:
            happened = [(event["kind"], event.get("phase")) for event in events(server, trial.build_id)]
            return ("phase_ended", phase) in happened

        return Held(server, trial, reached, upload.release)

    return hold


def _request(method: str, path: str, answer: bool = False) -> Callable[[Server, HoldingProxy, Trial], Held]:
    def hold(server: Server, proxy: HoldingProxy, trial: Trial) -> Held:
        held = proxy.hold(method, f"^/v2/{re.escape(trial.repository)}/{path}", answer=answer)
        return Held(server, trial, held.reached.is_set, held.release)

    return hold


def _record(server: Server, proxy: HoldingProxy, trial: Trial) -> Held:
    """All tags are written; the job waits for the record."""
    last = _request("PUT", f"manifests/{trial.names[-1]}$", answer=True)(server, proxy, trial)
    stack = ExitStack()

    def reached() -> bool:
        path = server.state / "b" / trial.build_id / "record.lock"
        if last.reached() and not locked:
            lock = stack.enter_context(path.open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            locked.append(lock)
            last.release()
        return bool(locked) and waiters(locked[0]) > 0

    locked: list[IO[bytes]] = []
    # The job is one of those who wait.
    return Held(server, trial, reached, stack.close, lambda: waiters(locked[0]) - 1)


def waiters(lock: IO[bytes]) -> int:
    """How many wait for a locked file."""
    inode = os.fstat(lock.fileno()).st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and f":{inode} " in line for line in lines)


BORDERS = (
    Border("source/build", _phase_ended("source"), committed=False),
    Border("build/test", _phase_ended("build"), committed=False),
    Border("test/publish", _phase_ended("test"), committed=False),
    Border("blob upload", _request("PUT|PATCH", "blobs/uploads/"), committed=False),
    Border("manifest upload", _request("PUT", "manifests/sha256:"), committed=False),
    Border("manifest/commit", _request("PUT", "manifests/sha256:", answer=True), committed=False),
    Border("commit/first tag", _request("PUT", "manifests/1$"), committed=True),
    Border("tag/tag", _request("PUT", "manifests/2$"), committed=True),
    Border("last tag/record", _request("PUT", "manifests/2$", answer=True), committed=True),
    Border("record", _record, committed=True),
)
