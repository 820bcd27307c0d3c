"""`kill` in every phase: what it answers, and what is left behind."""

from __future__ import annotations

import anyio
import pytest
from conftest import MakeServer
from git_http import SilentServer
from helpers import (
    ask,
    ask_both,
    fail,
    files,
    refused,
    sleep_marker,
    status_of,
    submit,
    succeed,
    unique,
    wait_final,
    wait_for,
    wait_state,
)
from local_registry import LocalRegistry
from machine import leftovers, mounts_below, processes_with
from mcp import ClientSession
from server import Server


async def kill_and_check(session: ClientSession, server: Server, build_id: str, marker: str = "") -> None:
    """Kills an unfinished build, and checks its end and that nothing of it is left."""
    answer, text = await ask_both(session, "kill", {"build_id": build_id, "reason": "no longer wanted", "wait": 40})
    assert answer["kill_result"] == "cancelled", answer
    assert answer["state"] == "cancelled"
    assert build_id in text
    status = await status_of(session, build_id)
    assert status["state"] == "cancelled"
    assert status["cancel"]["reason"] == "no longer wanted"
    assert status["cancel"]["by"] not in ("", "unknown")
    assert not status.get("image", {}).get("published")
    if marker:
        await wait_for(lambda: not processes_with(marker), "the end of the build's own processes", 10)
    await wait_for(lambda: not processes_with(build_id), "the end of the runner", 10)
    await wait_for(lambda: not leftovers(server.state, build_id), "the end of its storage", 10)
    assert not mounts_below(server.directory)
    log = await ask(session, "logs", {"build_id": build_id})
    assert log["complete"]

    again = await ask(session, "kill", {"build_id": build_id})
    assert (again["kill_result"], again["state"]) == ("already_finished", "cancelled")


async def test_in_the_build(session: ClientSession, server: Server, registry: LocalRegistry, base: str) -> None:
    marker, repository = sleep_marker(), f"e2e/{unique()}"
    build_id = await submit(
        session,
        source=files(Containerfile=f"FROM {base}\nRUN (sleep {marker} &) ; trap '' TERM; sleep {marker}\n"),
        tags=[f"{registry.host}/{repository}:1"],
    )
    await wait_for(lambda: processes_with(f"sleep {marker}"), "the RUN", 60)
    await kill_and_check(session, server, build_id, marker)
    assert not processes_with(str(server.state))
    assert registry.digest(repository, "1") is None


async def test_in_a_test(session: ClientSession, server: Server, registry: LocalRegistry, base: str) -> None:
    marker, repository = sleep_marker(), f"e2e/{unique()}"
    build_id = await submit(
        session,
        source=files(Containerfile=f"FROM {base}\n"),
        tests=[{"name": "endless", "command": f"trap '' TERM; sleep {marker}; true"}],
        tags=[f"{registry.host}/{repository}:1"],
    )
    await wait_for(lambda: processes_with(f"sleep {marker}"), "the test", 60)
    await kill_and_check(session, server, build_id, marker)
    assert not processes_with(str(server.state))
    assert registry.digest(repository, "1") is None


async def test_in_the_source(plain: ClientSession, plain_server: Server) -> None:
    with SilentServer() as git:
        build_id = await submit(plain, source={"git": f"{git.url}/repo.git"})
        await wait_for(git.asked.is_set, "git asking the server")
        await kill_and_check(plain, plain_server, build_id, git.url)


async def test_in_the_queue(make_server: MakeServer, base: str) -> None:
    server = make_server(slots=1)
    marker = sleep_marker()
    async with server.connect() as session:
        first = await submit(session, source=files(Containerfile=f"FROM {base}\nRUN sleep {marker}\n"))
        await wait_for(lambda: processes_with(f"sleep {marker}"), "the first build")
        second = await submit(session, source=files(Containerfile=f"FROM {base}\nRUN sleep 1{marker}\n"))
        status = await status_of(session, second)
        assert status["state"] == "queued"
        assert status["queue"]["reason"]
        answer = await ask(session, "kill", {"build_id": second})
        assert (answer["kill_result"], answer["state"]) == ("cancelled", "cancelled")
        assert (await status_of(session, first))["state"] == "running"
        assert processes_with(f"sleep {marker}")
        assert not processes_with(second)
        await kill_and_check(session, server, first, marker)


async def test_the_queue_gives_up(make_server: MakeServer, base: str) -> None:
    server = make_server(slots=1)
    marker = sleep_marker()
    async with server.connect() as session:
        await submit(session, source=files(Containerfile=f"FROM {base}\nRUN sleep {marker}\n"))
        await wait_for(lambda: processes_with(f"sleep {marker}"), "the first build")
        source = files(Containerfile=f"FROM {base}\nRUN echo {unique()}\n")
        await fail(session, "queue_timed_out", "operator", source=source, queue_timeout=2)


async def test_the_queue_goes_on_after_a_kill(make_server: MakeServer, base: str) -> None:
    server = make_server(slots=1)
    marker = sleep_marker()
    async with server.connect() as session:
        first = await submit(session, source=files(Containerfile=f"FROM {base}\nRUN sleep {marker}\n"))
        await wait_for(lambda: processes_with(f"sleep {marker}"), "the first build")
        second = await submit(session, source=files(Containerfile=f"FROM {base}\nRUN echo {unique()}\n"))
        await ask(session, "kill", {"build_id": first})
        assert (await wait_final(session, second))["state"] == "succeeded"


async def test_after_the_end(plain: ClientSession, registry: LocalRegistry, base: str) -> None:
    tag = f"{registry.host}/e2e/{unique()}:1"
    status = await succeed(plain, source=files(Containerfile=f"FROM {base}\n"), tags=[tag])
    for _ in range(2):
        answer, text = await ask_both(plain, "kill", {"build_id": status["build_id"]})
        assert (answer["kill_result"], answer["state"]) == ("already_finished", "succeeded")
        assert answer["image"]["digest"] == status["image"]["digest"]
        assert tag in text and status["image"]["digest"] in text


async def test_twice_at_the_same_time_over_two_servers(plain: ClientSession, plain_server: Server, base: str) -> None:
    marker = sleep_marker()
    build_id = await submit(plain, source=files(Containerfile=f"FROM {base}\nRUN sleep {marker}\n"))
    await wait_for(lambda: processes_with(f"sleep {marker}"), "the RUN")
    answers = []

    async def kill(session: ClientSession, reason: str) -> None:
        answers.append(await ask(session, "kill", {"build_id": build_id, "reason": reason, "wait": 40}))

    async with plain_server.connect() as other, anyio.create_task_group() as group:
        group.start_soon(kill, plain, "one")
        group.start_soon(kill, other, "two")
    assert {answer["state"] for answer in answers} == {"cancelled"}
    assert "cancelled" in {answer["kill_result"] for answer in answers}
    assert (await status_of(plain, build_id))["cancel"]["reason"] in ("one", "two")


@pytest.mark.parametrize("cut", [5, 8])
async def test_part_of_an_id_kills_nothing(plain: ClientSession, base: str, cut: int) -> None:
    marker = sleep_marker()
    build_id = await submit(plain, source=files(Containerfile=f"FROM {base}\nRUN sleep {marker}\n"))
    await refused(plain, "kill", {"build_id": build_id[:cut]}, "invalid_argument", "not_found")
    assert (await status_of(plain, build_id))["state"] in ("queued", "running")
    await wait_state(plain, build_id, "running")
    await ask(plain, "kill", {"build_id": build_id})
