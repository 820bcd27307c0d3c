"""Output that floods, and output that lies."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import pytest
from conftest import MakeServer
from helpers import ask, fail, files, log_text, run, submit, succeed, unique, wait_final, wait_for, wait_state
from mcp import ClientSession
from processes import Process, descriptors, look, of_build


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


# Prints when the process of Buildah that carries its output stands still, with each of its threads.
LATE = (
    "p=$PPID; until grep -q ^buildah-chroot-runtime /proc/$p/cmdline; do read -r _ _ _ p _ < /proc/$p/stat; done; "
    "while grep -qv ') T ' /proc/$p/task/*/stat; do :; done; echo this-is-''why; exit 3"
)


@pytest.mark.parametrize("phase", ["build", "test"])
async def test_what_buildah_has_not_carried_when_it_ends_is_read(
    make_server: MakeServer, buildah: Path, base: str, phase: str
) -> None:
    step = f"RUN {LATE}\n" if phase == "build" else ""
    tests = [{"name": "late", "command": LATE}] if phase == "test" else []
    async with make_server(buildah=buildah, isolation="chroot").connect() as session:
        build_id = await submit(session, source=files(Containerfile=f"FROM {base}\n{step}"), tests=tests)

        def held() -> Process | None:
            processes = of_build(build_id)
            # The trial of the sandbox has commands, too.
            commands = (each for each in processes if each.argv[:1] == ["buildah-chroot-exec"] and LATE in each.argv)
            command = next(commands, None)
            opened = {path for each in processes if each.role.startswith("runner") for path in descriptors(each.pid).values()}
            outputs = {descriptors(command.pid).get(number) for number in (1, 2)} if command else {None}
            return command if outputs <= opened else None

        command = await wait_for(held, "the runner to hold what the command prints to")
        os.kill(command.parent, signal.SIGSTOP)
        await wait_for(lambda: look(command.pid) is None, "the command's end")
        os.kill(command.parent, signal.SIGKILL)
        status = await wait_final(session, build_id)
        assert status["failure"]["phase"] == phase, status
        lines = [line.rpartition(" | ")[2] for line in (await log_text(session, build_id)).splitlines()]
        error = next(number for number, line in enumerate(lines) if line.startswith("Error: "))
        assert lines.index("this-is-why") < error, lines
