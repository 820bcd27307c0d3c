"""A build outlives the server and the connection that started it."""

from __future__ import annotations

import re
from typing import Any

from conftest import MakeServer
from helpers import files, log_text, submit, unique, wait_final, wait_for
from local_registry import LocalRegistry
from mcp import ClientSession
from server import Server

TICKS = 40


def slow(base: str) -> dict[str, Any]:
    """About eight seconds of RUN that tell how far they are."""
    loop = f"for i in $(seq 1 {TICKS}); do echo {unique('run')} tick-$i; sleep 0.2; done"
    return files(Containerfile=f"FROM {base}\nRUN {loop}\n")


async def check_complete(session: ClientSession, build_id: str) -> None:
    status = await wait_final(session, build_id)
    assert status["state"] == "succeeded", status
    # The instruction itself, which the log shows, too, has tick-$i.
    ticks = [int(n) for n in re.findall(r"tick-(\d+)$", await log_text(session, build_id, phase="build"), re.M)]
    assert ticks == list(range(1, TICKS + 1))


async def test_a_killed_server_loses_nothing(
    session: ClientSession, server: Server, registry: LocalRegistry, base: str
) -> None:
    repository = f"e2e/{unique()}"
    raw = server.raw()
    raw.initialize()
    args = {"source": slow(base), "tests": [{"command": "true"}], "tags": [f"{registry.host}/{repository}:1"]}
    build_id = raw.call("build", args)["structuredContent"]["build_id"]

    async def begun() -> bool:
        return "tick-3" in await log_text(session, build_id)

    await wait_for(begun, "the RUN's output")
    raw.kill()
    async with server.connect() as later:
        await check_complete(later, build_id)
        status = await wait_final(later, build_id)
    assert registry.digest(repository, "1") == status["image"]["digest"]


async def test_the_end_of_a_connection_ends_no_build(make_server: MakeServer, base: str) -> None:
    server = make_server()
    with server.raw() as raw:
        raw.initialize()
        build_id = raw.call("build", {"source": slow(base)})["structuredContent"]["build_id"]
        assert raw.close() == 0
    async with server.connect() as session:
        await check_complete(session, build_id)


async def test_two_servers_see_the_same_builds(plain: ClientSession, plain_server: Server, base: str) -> None:
    build_id = await submit(plain, source=slow(base))
    async with plain_server.connect() as other:
        await check_complete(other, build_id)
    await check_complete(plain, build_id)
