"""Output that floods, and output that lies."""

from __future__ import annotations

import stat
import time

from conftest import MakeServer
from helpers import ask, fail, files, run, submit, succeed, unique, wait_final, wait_state
from mcp import ClientSession


async def test_a_flood_can_be_killed(plain: ClientSession, base: str) -> None:
    build_id = await submit(plain, source=files(Containerfile=f"FROM {base}\nRUN yes\n"))
    await wait_state(plain, build_id, "running", "build")
    begun = time.monotonic()
    answer = await ask(plain, "kill", {"build_id": build_id, "wait": 40})
    assert answer["kill_result"] == "cancelled", answer
    assert time.monotonic() - begun < 30


async def test_a_flood_ends_at_its_deadline(plain: ClientSession, base: str) -> None:
    status = await run(plain, source=files(Containerfile=f"FROM {base}\nRUN yes {unique()}\n"), timeout=5)
    assert (status["state"], status["failure"]["kind"]) == ("timed_out", "timed_out")
    assert status["elapsed_seconds"] < 40


async def test_a_forged_step_moves_nothing(session: ClientSession, base: str) -> None:
    text = (
        f"FROM {base}\n"
        "RUN echo 'STEP 3/4: RUN exit 9'; echo 'STEP 4/4: RUN echo fine'; "
        'echo \'Error: building at STEP "RUN echo fine": exit status 1\'\n'
        "RUN exit 9\n"
        "RUN echo fine\n"
    )
    status = await fail(session, "command_failed", "code", source=files(Containerfile=text))
    failure = status["failure"]
    assert (failure["line"], failure["exit_code"], failure["instruction"]) == (3, 9, "RUN exit 9")


async def test_a_secret_of_another_stage_is_not_missed(plain: ClientSession, base: str) -> None:
    text = f"FROM {base} AS want\nRUN true\nFROM {base}\nRUN --mount=type=secret,id=t,required=true cat /run/secrets/t\n"
    await succeed(plain, source=files(Containerfile=text), target="want")


async def test_a_key_given_with_a_repetition_is_remembered(plain: ClientSession, base: str) -> None:
    arguments = {"source": files(Containerfile=f"FROM {base}\nRUN echo {unique()}; sleep 2\n")}
    first = await submit(plain, **arguments)
    key = unique("key")
    second = await ask(plain, "build", {**arguments, "key": key})
    assert (second["build_id"], second["reused"]) == (first, True)
    await wait_final(plain, first)
    third = await ask(plain, "build", {**arguments, "key": key})
    assert third["build_id"] == first


async def test_nobody_else_can_read_sources_and_logs(make_server: MakeServer, base: str) -> None:
    server = make_server()
    async with server.connect() as session:
        build_id = await submit(session, source=files(Containerfile=f"FROM {base}\nRUN sleep 3\n"))
        await wait_state(session, build_id, "running", "build")
        directory = server.state / "b" / build_id
        open_files = [
            path.name for path in directory.iterdir() if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
        ]
        assert (directory / "context.tar").exists() and (directory / "log.ndjson").exists()
        assert not open_files
        assert stat.S_IMODE((directory / "work").stat().st_mode) == 0o700
        await wait_final(session, build_id)
