"""Thirty builds, each killed at a random moment: every end agrees with the registry, and nothing is left.

The seed is printed; NOMAD_BUILD_TEST_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from typing import Any

import anyio
from conftest import MakeServer
from helpers import ask, files, submit, succeed, unique, wait_final, wait_for
from local_registry import LocalRegistry
from machine import leftovers, mounts_below, processes_with
from mcp import ClientSession

KILLS = 30
AT_ONCE = 3


def arguments(registry: LocalRegistry, base: str, repository: str) -> dict[str, Any]:
    """A build with something to do in each phase."""
    return {
        "source": files(Containerfile=f"FROM {base}\nRUN echo {repository} > /x\nRUN sleep 0.2\n"),
        "tests": [{"command": "test -s /x; sleep 0.2"}],
        "tags": [f"{registry.host}/{repository}:1"],
    }


async def test_kills_at_random_moments(make_server: MakeServer, registry: LocalRegistry, base: str) -> None:
    seed = int(os.environ.get("NOMAD_BUILD_TEST_SEED", "20"))
    print(f"seed {seed}")
    chance = random.Random(seed)
    server = make_server(slots=AT_ONCE)
    async with server.connect() as session:
        await succeed(session, **arguments(registry, base, f"storm/{unique()}"))
        begun = time.monotonic()
        await succeed(session, **arguments(registry, base, f"storm/{unique()}"))
        # With others at its side a build takes longer than alone; some shall end before their kill.
        longest = 2.0 * (time.monotonic() - begun)
        delays = [chance.uniform(0, longest) for _ in range(KILLS)]
        ends: dict[str, dict[str, Any]] = {}

        async def one(delay: float, limit: anyio.CapacityLimiter) -> None:
            async with limit:
                repository = f"storm/{unique()}"
                build_id = await submit(session, **arguments(registry, base, repository))
                await anyio.sleep(delay)
                await check_kill(session, build_id)
                ends[repository] = await wait_final(session, build_id, 60)

        limit = anyio.CapacityLimiter(AT_ONCE)
        async with anyio.create_task_group() as group:
            for delay in delays:
                group.start_soon(one, delay, limit)

        assert len(ends) == KILLS
        print(Counter(f"{end['state']} in {end.get('phase')}" for end in ends.values()))
        for repository, end in ends.items():
            published = registry.digest(repository, "1")
            if end["state"] == "succeeded":
                assert published == end["image"]["digest"], end
            else:
                assert end["state"] == "cancelled", end
                assert published is None, end
        assert "cancelled" in {end["state"] for end in ends.values()}
        await wait_for(lambda: not processes_with(str(server.directory)), "the end of all processes", 15)
        for end in ends.values():
            assert not leftovers(server.state, end["build_id"])
            assert not processes_with(end["build_id"])
        assert not mounts_below(server.directory)
        await succeed(session, **arguments(registry, base, f"storm/{unique()}"))


async def check_kill(session: ClientSession, build_id: str) -> None:
    """The answer of the kill agrees with the state that the build has from then on."""
    answer = await ask(session, "kill", {"build_id": build_id, "wait": 40})
    if answer["kill_result"] == "cancelled":
        assert answer["state"] == "cancelled"
    elif answer["kill_result"] == "already_finished":
        assert answer["state"] in ("succeeded", "cancelled")
