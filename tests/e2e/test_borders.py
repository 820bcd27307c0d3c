"""`kill` at each border within a build: once, twice, from two servers; and requests that arrive late."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
from borders import BORDERS, Border
from conftest import MakeServer
from endings import Trial, nothing_left, record
from helpers import files, submit, wait_for
from holding_proxy import HoldingProxy
from local_registry import LocalRegistry
from machine import Before
from mcp import ClientSession
from processes import of_build
from server import Server

AT_ONCE = 3
# What is held cannot end meanwhile: the answer is then `stopping`.
SHORT = 1


async def once(trial: Trial, session: ClientSession, _: ClientSession) -> None:
    await trial.kill(session, SHORT)


async def twice(trial: Trial, session: ClientSession, _: ClientSession) -> None:
    await trial.kill(session, 0)
    await trial.kill(session, SHORT)


async def from_two_servers(trial: Trial, session: ClientSession, other: ClientSession) -> None:
    await trial.kill_from_both(session, other, SHORT)


MEANS = {"once": once, "twice": twice, "from two servers": from_two_servers}


@pytest.fixture
def proxy(registry: LocalRegistry) -> Iterator[HoldingProxy]:
    with HoldingProxy(registry.host) as proxy:
        yield proxy


async def begin(session: ClientSession, trial: Trial, base: str) -> None:
    """Starts a build with something to do in each phase."""
    source = files(Containerfile=f"FROM {base}\nRUN echo {trial.repository} > /x\n")
    tests = [{"command": "test -s /x"}]
    trial.build_id = await submit(session, source=source, tests=tests, tags=trial.tags)


@pytest.mark.parametrize("means", MEANS)
async def test_kill_at_each_border(
    make_server: MakeServer, registry: LocalRegistry, proxy: HoldingProxy, base: str, means: str
) -> None:
    server = make_server(slots=AT_ONCE, proxies=[proxy.host])
    before = Before(server.directory)
    limit = anyio.CapacityLimiter(AT_ONCE)
    faults: list[str] = []
    async with server.connect() as session, server.connect() as other:

        async def one(border: Border) -> None:
            async with limit:
                try:
                    await kill_there(server, border)
                except AssertionError as error:
                    faults.append(f"{border.name}: {error}")

        async def kill_there(server: Server, border: Border) -> None:
            trial = Trial(registry, proxy.host)
            held = border.hold(server, proxy, trial)
            await begin(session, trial, base)
            await held.wait()
            await held.end_by(lambda: MEANS[means](trial, session, other))
            state = await trial.ended(other, session)
            assert state == ("succeeded" if border.committed else "cancelled"), trial.end
            assert bool(record(server, trial.build_id).get("commit")) == border.committed
            await trial.kill(other)
            assert trial.answers[-1]["kill_result"] == "already_finished"
            assert not trial.untruths(), trial.untruths()

        async with anyio.create_task_group() as group:
            for border in BORDERS:
                group.start_soon(one, border)
    await nothing_left(before)
    assert not faults, "\n".join(faults)


async def test_a_tag_that_is_on_its_way_when_publish_dies(
    make_server: MakeServer, registry: LocalRegistry, proxy: HoldingProxy, base: str
) -> None:
    """It may arrive later: the build says that it does not know."""
    server = make_server(proxies=[proxy.host])
    before = Before(server.directory)
    trial = Trial(registry, proxy.host)
    tag = proxy.hold("PUT", f"/{trial.repository}/manifests/1$", late=True)
    async with server.connect() as session, server.connect() as other:
        await begin(session, trial, base)
        await wait_for(tag.reached.is_set, "the first tag")
        assert [process.kill() for process in of_build(trial.build_id) if process.role == "runner publish"] == [True]
        assert await trial.ended(session, other) == "lost"
        assert registry.digest(trial.repository, "1") is None
        tag.release()
        await wait_for(lambda: registry.digest(trial.repository, "1"), "its arrival")
        assert [(one["tag"], one["state"]) for one in trial.end["image"]["tags"]] == [(trial.tags[0], "unknown")]
        assert "look at image.tags" in trial.end["failure"]["hint"]
        assert not trial.untruths(), trial.untruths()
    await nothing_left(before)
