"""SIGKILL of any single process of a build, in each phase: a true end, seen alike by all, and nothing left."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from borders import waiters
from conftest import MakeServer, distribution_buildah
from endings import Trial, events, nothing_left, record
from git_http import GitHttp, commit, git
from helpers import files, rest, sleep_marker, submit, succeed, unique, wait_for
from holding_proxy import HoldingProxy
from images import extend
from local_registry import LocalRegistry, free_port
from machine import Before
from mcp import ClientSession
from mcp_stdio import McpProcess
from processes import Process, job_of, of_build, running, tree
from server import Server

AT_ONCE = 3
Submit = Callable[[dict[str, Any]], Awaitable[str]]
REACHED = 90.0
"""Seconds that a build may take to the moment at which something of it dies."""
SOON = 30.0
"""Seconds from a death to the end of the build, at most."""
ATTEMPTS = 4
"""How many builds are looked through for a process that lives for milliseconds."""
TIED = ("runner build", "runner job", "runner publish")
"""What tells of the end itself: without it the build is lost."""
FOREIGN = ("sh", "sleep")
"""Processes of the command itself: their end is what it came to."""
OBLIVIOUS = ("git remote-http",)
"""Only waits for another: what it is needed for goes on without it, to its end."""
EARLY = {moment: ("pasta", "runner enclose", "runner unshare") for moment in ("source", "pull")}
"""Of a sandbox that is not needed yet."""
REPEATED = ("buildah pull", "inner buildah pull")
"""What is tried again, by another way."""
PASSING = (
    "buildah from",
    "buildah images",
    "buildah-copier",
    "chrootuser-open",
    "inner buildah images",
    "runc create",
    "runc init",
    "runner enter",
    "storage-untar",
)
ALWAYS_THERE = {
    "source: git",
    "source: server",
    "pull: buildah pull",
    "build: buildah build",
    "build: runner unshare",
    "build: runner build",
    "test: buildah run",
    "pack: buildah push",
    "publish: runner job",
    "publish: runner publish",
}


@dataclass
class Place:
    """Servers before which a proxy holds what the builds of a phase ask for."""

    registry: LocalRegistry
    proxy: HoldingProxy
    git: HoldingProxy
    served: Path
    base: str


@dataclass
class Still:
    """A build that stands still at a moment of its phase, and how it goes on."""

    trial: Trial
    arguments: dict[str, Any]
    reached: Callable[[], bool]
    go_on: Callable[[], None]
    passing: bool = False
    """It does not stand still; it does the same for a while."""


def in_source(place: Place, trial: Trial) -> Still:
    """Git waits for its server."""
    name = unique("repo")
    (place.served / name).symlink_to("repo.git")
    hold = place.git.hold("GET", f"^/{name}/")
    arguments = {"source": {"git": f"http://{place.git.host}/{name}"}}
    return Still(trial, arguments, hold.reached.is_set, hold.release)


def in_pull(place: Place, trial: Trial) -> Still:
    """Buildah waits for a layer of the base image."""
    name = unique("base")
    layer = extend(place.registry, "test/base", "1", name, 100_000)
    hold = place.proxy.hold("GET", f"/blobs/{layer}", answer=True)
    arguments = {"source": files(Containerfile=f"FROM {place.proxy.host}/test/base:{name}\n")}
    return Still(trial, arguments, hold.reached.is_set, hold.release)


def in_build(place: Place, trial: Trial) -> Still:
    """A command of a RUN sleeps."""
    marker = sleep_marker()
    source = files(Containerfile=f"FROM {place.base}\nRUN sleep {marker} || true\n")
    return Still(trial, {"source": source}, lambda: bool(sleepers(marker)), lambda: wake(marker))


def in_test(place: Place, trial: Trial) -> Still:
    """A command of a test sleeps."""
    marker = sleep_marker()
    arguments = {
        "source": files(Containerfile=f"FROM {place.base}\n"),
        "tests": [{"command": f"sleep {marker} || true"}],
    }
    return Still(trial, arguments, lambda: bool(sleepers(marker)), lambda: wake(marker))


def in_pack(place: Place, trial: Trial) -> Still:
    """The tested image, with a layer that takes a while to compress, becomes ready for the push."""
    source = files(Containerfile=f"FROM {place.base}\nRUN head -c 120000000 /dev/urandom > /big\n")

    def reached() -> bool:
        return "buildah push" in {process.role for process in of_build(trial.build_id)}

    return Still(trial, {"source": source}, reached, lambda: None, passing=True)


def in_publish(place: Place, trial: Trial) -> Still:
    """The registry takes its time with the manifest."""
    hold = place.proxy.hold("PUT", f"/{trial.repository}/manifests/sha256:")
    source = files(Containerfile=f"FROM {place.base}\nRUN echo {trial.repository} > /x\n")
    return Still(trial, {"source": source}, hold.reached.is_set, hold.release)


MOMENTS = {
    "source": in_source,
    "pull": in_pull,
    "build": in_build,
    "test": in_test,
    "pack": in_pack,
    "publish": in_publish,
}


def sleepers(marker: str) -> list[Process]:
    """The command that sleeps."""
    return running("sleep", marker)


def wake(marker: str) -> None:
    """Lets what comes after the sleep go on."""
    for process in sleepers(marker):
        os.kill(process.pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def place(registry: LocalRegistry, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("git")
    work, served = root / "work", root / "served"
    work.mkdir()
    served.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    commit(work, "main", {"Containerfile": f"FROM {base}\nRUN echo x > /x\n"})
    git(root, "clone", "--quiet", "--bare", str(work), str(served / "repo.git"))
    with GitHttp(served) as server, HoldingProxy(registry.host) as proxy:
        with HoldingProxy(server.url.removeprefix("http://")) as git_proxy:
            yield Place(registry, proxy, git_proxy, served, base)


def over(raw: McpProcess) -> Submit:
    """Starts builds over a connection whose server can be killed."""

    async def submit(arguments: dict[str, Any]) -> str:
        return raw.call("build", arguments)["structuredContent"]["build_id"]

    return submit


async def reach(server: Server, place: Place, moment: str, submit: Submit) -> Still:
    """Starts a build and waits until it has come to the moment."""
    still = MOMENTS[moment](place, Trial(place.registry, place.proxy.host))
    still.trial.build_id = await submit(still.arguments | {"tags": still.trial.tags})
    deadline = time.monotonic() + REACHED
    while True:
        began = time.monotonic()
        if still.reached():
            return still
        late = time.monotonic() > deadline or "end" in record(server, still.trial.build_id)
        assert not late, f"not reached: {events(server, still.trial.build_id)}"
        await rest(began, 0.005)


def roles(still: Still) -> set[str]:
    """What the processes of the build are."""
    return {process.role for process in of_build(still.trial.build_id)} - {""}


class Deaths:
    """Builds on one server, of each of which one process dies."""

    def __init__(self, server: Server, place: Place, session: ClientSession, other: ClientSession) -> None:
        self.server = server
        self.place = place
        self.session = session
        self.other = other
        self.ends: dict[str, str] = {}
        self.faults: list[str] = []
        self.half_pulled: list[dict[str, Any]] = []

    async def server_dies(self, moment: str) -> list[str]:
        """The server that has started the build dies, and the build goes on; returns the roles of its processes."""
        with self.server.raw() as raw:
            raw.initialize()
            still = await reach(self.server, self.place, moment, over(raw))
            found, earlier = roles(still), None
            while not still.passing and found != earlier:
                await anyio.sleep(0.1)
                found, earlier = roles(still), found
            raw.kill()
        still.go_on()
        await self.ended(f"{moment}: server", still.trial, "succeeded")
        return sorted(found)

    async def process_dies(self, moment: str, role: str) -> None:
        """One process with this role dies."""
        still = await reach(self.server, self.place, moment, lambda arguments: submit(self.session, **arguments))
        if moment == "pull":
            self.half_pulled.append(still.arguments)

        def victims() -> list[Process]:
            return [process for process in of_build(still.trial.build_id) if process.role == role]

        name = f"{moment}: {role}"
        # Not all are there as soon as the moment is.

        def missing() -> str:
            return f"{name} among {sorted(roles(still))}, {events(self.server, still.trial.build_id)}"

        found = victims() if still.passing else await wait_for(victims, missing)
        assert found and found[0].kill(), f"there is no {missing()}"
        states = ["lost"] if role in TIED else ["failed", "lost"]
        unnoticed = role in (*OBLIVIOUS, *EARLY.get(moment, ()))
        if unnoticed:
            still.go_on()
        # What does not stand still may have done its work when it dies.
        done = still.passing or unnoticed or role in REPEATED
        await self.ended(name, still.trial, *states, *(["succeeded"] if done else []))
        failure = still.trial.end.get("failure", {})
        if failure.get("fault") in ("code", "request"):
            self.faults.append(f"{name}: it is said to be the fault of the {failure['fault']}: {failure}")

    async def dies_in_passing(self, role: str) -> None:
        """The first process with this role dies, if one is seen."""
        for _ in range(ATTEMPTS):
            trial = Trial(self.place.registry)
            source = files(Containerfile=f"FROM {self.place.base}\nRUN echo {trial.repository} > /x\n")
            tests = [{"command": "test -s /x"}]
            trial.build_id = await submit(self.session, source=source, tests=tests, tags=trial.tags)
            job = await wait_for(lambda id=trial.build_id: job_of(id), "the job")
            while job.alive():
                if any(process.role == role and process.kill() for process in tree(job.pid)):
                    await self.ended(f"passing: {role}", trial, "failed", "lost", "succeeded")
                    return
                await anyio.sleep(0.001)
            await trial.ended(self.session, self.other)

    async def ended(self, name: str, trial: Trial, *states: str) -> None:
        """Waits for a true end in one of these states; what is wrong with it is kept."""
        try:
            began = time.monotonic()
            self.ends[name] = await trial.ended(self.session, self.other, seconds=SOON)
            failure = trial.end.get("failure", {})
            said = f"{failure.get('fault', '')} {failure.get('message', '')}"
            print(f"{name}: {self.ends[name]} after {time.monotonic() - began:.1f} s {said}")
            if self.ends[name] not in states:
                self.faults.append(f"{name}: {trial.end}")
        except AssertionError as error:
            self.faults.append(f"{name}: {error}")
            await trial.kill(self.session)


async def test_any_process_may_die(make_server: MakeServer, place: Place, buildah: Path) -> None:
    # What does not depend on Buildah dies once.
    moments = list(MOMENTS) if buildah == distribution_buildah() else ["build", "test"]
    server = make_server(buildah=buildah, slots=AT_ONCE, proxies=[place.proxy.host])
    before = Before(server.directory)
    limit = anyio.CapacityLimiter(AT_ONCE)
    async with server.connect() as session, server.connect() as other:
        deaths = Deaths(server, place, session, other)

        async def one(moment: str, role: str) -> None:
            async with limit:
                try:
                    await deaths.process_dies(moment, role)
                except AssertionError as error:
                    deaths.faults.append(f"{moment}: {role}: {error}")

        async def all_roles(moment: str) -> None:
            async with limit:
                found = await deaths.server_dies(moment)
            for role in found:
                if role not in (*FOREIGN, *PASSING):
                    group.start_soon(one, moment, role)

        async with anyio.create_task_group() as group:
            for moment in moments:
                group.start_soon(all_roles, moment)
        async with anyio.create_task_group() as group:
            for arguments in deaths.half_pulled:
                group.start_soon(lambda arguments: succeed(session, **arguments), arguments)
    print(Counter(deaths.ends.values()), deaths.ends)
    assert not deaths.faults, "\n".join(deaths.faults)
    await nothing_left(before)
    assert deaths.ends.keys() >= {name for name in ALWAYS_THERE if name.split(":")[0] in moments}


async def test_any_process_may_die_in_passing(make_server: MakeServer, place: Place) -> None:
    """The same for what lives for milliseconds: killed as soon as it is seen."""
    server = make_server(slots=AT_ONCE, proxies=[place.proxy.host])
    before = Before(server.directory)
    limit = anyio.CapacityLimiter(AT_ONCE)
    async with server.connect() as session, server.connect() as other:
        deaths = Deaths(server, place, session, other)

        async def one(role: str) -> None:
            async with limit:
                await deaths.dies_in_passing(role)

        async with anyio.create_task_group() as group:
            for role in PASSING:
                group.start_soon(one, role)
    print(Counter(deaths.ends.values()), deaths.ends)
    assert not deaths.faults, "\n".join(deaths.faults)
    await nothing_left(before)
    assert len(deaths.ends) > len(PASSING) / 2


async def test_everything_dies(make_server: MakeServer, place: Place) -> None:
    """kill -9 of all servers and of all processes of all builds, in each phase; a new server cleans up."""
    server = make_server(slots=len(MOMENTS), proxies=[place.proxy.host])
    before = Before(server.directory)
    with ExitStack() as stack:
        raws = [stack.enter_context(server.raw()) for _ in MOMENTS]
        stills: list[Still] = []

        async def one(moment: str, raw: McpProcess) -> None:
            raw.initialize()
            stills.append(await reach(server, place, moment, over(raw)))

        async with anyio.create_task_group() as group:
            for moment, raw in zip(MOMENTS, raws, strict=True):
                group.start_soon(one, moment, raw)
        everything = [process for still in stills for process in of_build(still.trial.build_id)]
        for raw in raws:
            raw.kill()
        for process in everything:
            process.kill()
    # It is not asked for anything.
    with server.raw() as raw:
        raw.initialize()
        await nothing_left(before)
    async with server.connect() as session, server.connect() as other:
        for still in stills:
            state = await still.trial.ended(session, other)
            # What does not stand still may have ended before.
            assert state == "lost" or still.passing, still.trial.end
        place.proxy.release_all()
        for still in stills:
            assert not still.trial.untruths(), still.trial.untruths()
        await succeed(session, source=files(Containerfile=f"FROM {place.base}\nRUN true\n"))


async def test_everything_of_a_build_dies_beside_a_server(make_server: MakeServer, place: Place) -> None:
    """It has looked at the build before, while that was alive, and is not asked again."""
    server = make_server()
    before = Before(server.directory)
    with server.raw() as raw:
        raw.initialize()
        still = await reach(server, place, "build", over(raw))
        for process in of_build(still.trial.build_id):
            process.kill()
        await wait_for(lambda: "end" in record(server, still.trial.build_id), "its end", SOON)
        await nothing_left(before)
    async with server.connect() as session, server.connect() as other:
        assert await still.trial.ended(session, other) == "lost"


async def test_a_server_dies_while_it_accepts_a_build(make_server: MakeServer, registry: LocalRegistry) -> None:
    """At a moment when all that there is of the build is its snapshot, and at others."""
    server = make_server()
    before = Before(server.directory)
    chance = random.Random(7)
    sources = [{"git": f"http://127.0.0.1:{free_port()}/nobody.git"}, files(Containerfile="FROM scratch\nCOPY x /\n")]
    for number, delay in enumerate([None, *(chance.uniform(0, 0.1) for _ in range(15))]):
        with server.raw() as raw:
            raw.initialize()
            with (server.state / "k/.lock").open("ab") as lock:
                if delay is None:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                source = sources[1 if delay is None else number % 2]
                arguments = {"source": source, "labels": [f"number={number}"]}
                raw.start_request("tools/call", {"name": "build", "arguments": arguments})
                if delay is None:
                    await wait_for(lambda lock=lock: waiters(lock), "the server waiting for its turn")
                else:
                    time.sleep(delay)
                raw.kill()
    async with server.connect() as session, server.connect() as other:
        ids = [path.name for path in (server.state / "b").iterdir()]
        for build_id in ids:
            await Trial(registry, build_id=build_id, names=()).ended(session, other)
    print(f"{len(ids)} builds were accepted")
    await nothing_left(before)
