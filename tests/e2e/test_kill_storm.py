"""Builds that are ended at random, by the tool and by SIGKILL: every end agrees with the registry, nothing survives.

Half of the builds use the distribution's Buildah, half the newest. The seed is printed; NOMAD_BUILD_TEST_SEED repeats a
run. `make endurance` runs the long one.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from borders import BORDERS, Border
from conftest import MakeServer, distribution_buildah, newest_buildah
from endings import Trial, events, nothing_left, record
from git_http import GitHttp, commit, git
from helpers import files, submit, succeed
from holding_proxy import HoldingProxy
from local_registry import LocalRegistry
from machine import Before
from mcp import ClientSession
from processes import of_build
from server import Server

AT_ONCE = 3
# A build that is held cannot end meanwhile.
SHORT = 1


@dataclass
class Plan:
    """One build of the storm: decided before it begins, so that a seed repeats it."""

    border: Border | None
    """Where it is ended; None: at a random moment."""
    moment: float
    """Which moment: after this part of the events of a whole build, …"""
    delay: float
    """… and this part of the time that there is on average between two of them."""
    means: str
    git: bool
    newest: bool
    chance: random.Random


@dataclass
class Side:
    """A server with one of the two Buildahs, and two connections to it."""

    server: Server
    before: Before
    session: ClientSession
    other: ClientSession
    events: int = 0
    """Events of a whole build."""
    pace: float = 0.0
    """Seconds between two of them, on average, with others at its side."""


@dataclass
class Storm:
    """Everything that the builds of a storm share, and what came of them."""

    registry: LocalRegistry
    proxy: HoldingProxy
    base: str
    git_url: str
    sides: list[Side] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def arguments(self, trial: Trial, from_git: bool) -> dict[str, Any]:
        """A build with something to do in each phase."""
        text = f"FROM {self.base}\nRUN echo {trial.repository} > /x\nRUN sleep 0.2\n"
        source = {"git": self.git_url, **files(Containerfile=text)} if from_git else files(Containerfile=text)
        tests = [{"command": "test -s /x"}, {"command": "sleep 0.1"}]
        return {"source": source, "tests": tests, "tags": trial.tags}

    async def measure(self, side: Side) -> None:
        """Fills the caches, and measures a build."""
        for _ in range(2):
            began = time.monotonic()
            end = await succeed(side.session, **self.arguments(Trial(self.registry, self.proxy.host), True))
            side.events = len(events(side.server, end["build_id"]))
            side.pace = AT_ONCE * (time.monotonic() - began) / side.events

    async def run(self, plan: Plan) -> None:
        """One build: started, ended, its end weighed."""
        side = self.sides[plan.newest]
        trial = Trial(self.registry, self.proxy.host)
        held = plan.border.hold(side.server, self.proxy, trial) if plan.border else None
        trial.build_id = await submit(side.session, **self.arguments(trial, plan.git))
        self.trials.append(trial)

        async def end() -> None:
            await MEANS[plan.means](plan, side, trial)

        if held:
            await held.wait()
            await held.end_by(end)
        else:
            await self.random_moment(plan, side, trial)
            await end()
        state = await trial.ended(side.other, side.session)
        self.ends[f"{plan.border.name if plan.border else 'random'}: {state}"] += 1
        if "kill" in plan.means:
            expected = {True: ["succeeded"], False: ["cancelled"], None: ["succeeded", "cancelled"]}
            assert state in expected[plan.border and plan.border.committed], trial.end

    async def random_moment(self, plan: Plan, side: Side, trial: Trial) -> None:
        """Waits until the build has come so far, or has ended."""
        wanted = int(plan.moment * side.events)
        while len(events(side.server, trial.build_id)) < wanted and "end" not in record(side.server, trial.build_id):
            await anyio.sleep(0.005)
        await anyio.sleep(plan.delay * side.pace)


async def kill(plan: Plan, side: Side, trial: Trial) -> None:
    await trial.kill(side.session, SHORT)


async def kill_twice(plan: Plan, side: Side, trial: Trial) -> None:
    await trial.kill(side.session, 0)
    await trial.kill(side.session, SHORT)


async def kill_from_two_servers(plan: Plan, side: Side, trial: Trial) -> None:
    await trial.kill_from_both(side.session, side.other, SHORT)


async def death_of_one(plan: Plan, side: Side, trial: Trial) -> None:
    found = of_build(trial.build_id)
    if found:
        plan.chance.choice(found).kill()


async def death_of_all(plan: Plan, side: Side, trial: Trial) -> None:
    found = of_build(trial.build_id)
    plan.chance.shuffle(found)
    for process in found:
        process.kill()


MEANS: dict[str, Callable[[Plan, Side, Trial], Awaitable[None]]] = {
    "kill": kill,
    "kill twice": kill_twice,
    "kill from two servers": kill_from_two_servers,
    "death of one": death_of_one,
    "death of all": death_of_all,
}


def plans(seed: int, at_each_border: int, at_random: int) -> list[Plan]:
    """What the storm does, in a random order."""
    chance = random.Random(seed)
    places = [*BORDERS * at_each_border, *[None] * at_random]
    chance.shuffle(places)
    # Some are to end before they are ended.
    return [
        Plan(
            place,
            chance.uniform(0, 1.1),
            chance.uniform(0, 2),
            chance.choice(list(MEANS)),
            chance.random() < 0.5,
            chance.random() < 0.5,
            random.Random(chance.random()),
        )
        for place in places
    ]


@pytest.fixture
def git_url(tmp_path: Path) -> Iterator[str]:
    work, served = tmp_path / "work", tmp_path / "served"
    work.mkdir()
    served.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    commit(work, "main", {"README": "x\n"})
    git(tmp_path, "clone", "--quiet", "--bare", str(work), str(served / "repo.git"))
    with GitHttp(served) as server:
        yield f"{server.url}/repo.git"


@pytest.fixture
def proxy(registry: LocalRegistry) -> Iterator[HoldingProxy]:
    with HoldingProxy(registry.host) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("at_each_border", "at_random"),
    [pytest.param(1, 20, id="short"), pytest.param(10, 200, id="long", marks=pytest.mark.endurance)],
)
async def test_ends_at_borders_and_at_random(
    make_server: MakeServer,
    registry: LocalRegistry,
    proxy: HoldingProxy,
    base: str,
    git_url: str,
    at_each_border: int,
    at_random: int,
) -> None:
    seed = int(os.environ.get("NOMAD_BUILD_TEST_SEED", "20"))
    print(f"\nNOMAD_BUILD_TEST_SEED={seed}")
    storm = Storm(registry, proxy, base, git_url)
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def one(number: int, plan: Plan) -> None:
        async with limit:
            try:
                await storm.run(plan)
            except AssertionError as error:
                storm.faults.append(f"{number}: {plan}: {error}")
                print(storm.faults[-1])

    began = time.monotonic()
    async with AsyncExitStack() as stack:
        for buildah in (distribution_buildah(), newest_buildah()):
            server = make_server(buildah=buildah, slots=AT_ONCE, proxies=[proxy.host])
            before = Before(server.directory)
            session, other = [await stack.enter_async_context(server.connect()) for _ in range(2)]
            storm.sides.append(Side(server, before, session, other))
            await storm.measure(storm.sides[-1])
        async with anyio.create_task_group() as group:
            for number, plan in enumerate(plans(seed, at_each_border, at_random)):
                group.start_soon(one, number, plan)
        for side in storm.sides:
            await succeed(side.session, **storm.arguments(Trial(registry, proxy.host), False))
    for end, count in sorted(storm.ends.items()):
        print(f"{count:4} {end}")
    print(f"{len(storm.trials)} builds in {time.monotonic() - began:.0f} s")
    # What is on its way when a build ends must not arrive later.
    proxy.release_all()
    for side in storm.sides:
        await nothing_left(side.before)
    storm.faults += [fault for trial in storm.trials if trial.end for fault in trial.untruths()]
    assert not storm.faults, "\n".join(storm.faults)
    assert {"cancelled", "succeeded", "lost"} <= {end.rsplit(" ")[-1] for end in storm.ends}
