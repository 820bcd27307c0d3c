"""Limits of a build: what they end is told by name, and what a host cannot enforce is said."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from conftest import MakeServer
from helpers import (
    ask,
    ask_both,
    fail,
    files,
    log_text,
    refused,
    run,
    sleep_marker,
    submit,
    succeed,
    wait_final,
    wait_for,
    wait_state,
)
from machine import cgroups_of, limits_enforced, processes_left, processes_with
from mcp import ClientSession
from server import Server

# Bounded: on a host that enforces nothing it must do no harm.
HOG = "head -c 600000000 /dev/zero | tail >/dev/null"
# The biggest process may well be one of the server's own.
CROWD = "for i in $(seq 40); do (head -c 10000000 /dev/zero; sleep 30) | tail >/dev/null & done; wait"
SWARM = "for i in $(seq 400); do sleep 30 & done; wait"
LIMITS = {"memory_mb": 256, "processes": 200}


@pytest.fixture
def small(make_server: MakeServer) -> Server:
    """A server with little for a build, and a profile with more."""
    large = {"description": "for C++", "memory_mb": 2048, "processes": 1000}
    return make_server(limits=LIMITS, profiles={"large": large})


def is_enforced(log: str, what: str) -> bool:
    """Whether the log does not say the contrary; as root with cgroups it must not."""
    said = re.search(r"unenforced on this host: (.*)", log)
    enforced = said is None or what not in re.split(r"\W+", said[1])
    assert enforced or not limits_enforced(what), log
    return enforced


@pytest.mark.parametrize("isolation", ["rootless", "chroot"])
async def test_a_hog_is_told_its_limit_of_memory(
    make_server: MakeServer, buildah: Path, base: str, isolation: str
) -> None:
    server = make_server(buildah=buildah, isolation=isolation, limits=LIMITS)
    source = files(Containerfile=f"FROM {base}\nRUN {HOG}\n")
    async with server.connect() as session:
        status = await run(session, source=source)
        if not is_enforced(await log_text(session, status["build_id"]), "memory"):
            assert "limit_mb" not in status["resources"]
            return
        status = await fail(session, "out_of_memory", "code", source=source)
    failure = status["failure"]
    assert "256 MiB memory (limits.memory_mb of the profile default)" in failure["message"]
    assert (failure["line"], failure["phase"]) == (2, "build")
    assert failure["hint"]
    assert status["resources"]["limit_mb"] == 256
    assert 200 <= status["resources"]["peak_memory_mb"] <= 256


async def test_whoever_is_killed_the_limit_is_told(make_server: MakeServer, buildah: Path, base: str) -> None:
    server = make_server(buildah=buildah, limits={"memory_mb": 256}, profiles={"large": {"memory_mb": 2048}})
    async with server.connect() as session:
        large = await succeed(session, source=files(Containerfile=f"FROM {base}\nRUN true\n"), profile="large")
        if not is_enforced(await log_text(session, large["build_id"]), "memory"):
            return
        source = files(Containerfile=f"FROM {base}\nRUN {CROWD}; exit 1\n")
        status = await fail(session, "out_of_memory", "code", source=source)
    assert "256 MiB memory" in status["failure"]["message"]
    assert not cgroups_of(status["build_id"])


async def test_a_test_is_told_its_limit_of_memory(small: Server, base: str) -> None:
    async with small.connect() as session:
        arguments = {"source": files(Containerfile=f"FROM {base}\n"), "tests": [{"name": "hog", "command": HOG}]}
        large = await succeed(session, **arguments, profile="large")
        if not is_enforced(await log_text(session, large["build_id"]), "memory"):
            return
        status = await fail(session, "out_of_memory", "code", **arguments)
    assert (status["failure"]["test"], status["tests"][0]["status"]) == ("hog", "failed")
    assert large["resources"]["limit_mb"] == 2048
    assert 570 <= large["resources"]["peak_memory_mb"] <= 2048, "the memory of all processes is not measured"


async def test_a_swarm_is_told_its_limit_of_processes(make_server: MakeServer, buildah: Path, base: str) -> None:
    server = make_server(buildah=buildah, limits=LIMITS)
    async with server.connect() as session:
        status = await fail(session, "limit_reached", "code", source=files(Containerfile=f"FROM {base}\nRUN {SWARM}\n"))
    assert "200 processes (limits.processes of the profile default)" in status["failure"]["message"]
    assert status["failure"]["line"] == 2
    assert not cgroups_of(status["build_id"])


async def test_a_limit_that_was_borne_is_not_blamed_later(small: Server, base: str) -> None:
    async with small.connect() as session:
        text = f"FROM {base}\nRUN ({HOG}) || true\nRUN exit 3\n"
        status = await fail(session, "command_failed", "code", source=files(Containerfile=text))
    assert (status["failure"]["line"], status["failure"]["exit_code"]) == (3, 3)


async def test_the_time_of_processors_is_limited(make_server: MakeServer, base: str) -> None:
    server = make_server(profiles={"slow": {"cpus": 0.2}})
    async with server.connect() as session:
        busy = "time timeout 4 sh -c 'while :; do :; done' || true"
        text = f"FROM {base}\nRUN {busy}\n"
        status = await succeed(session, source=files(Containerfile=text), profile="slow")
        log = await log_text(session, status["build_id"])
    used = re.search(r"user\s+0m ([0-9.]+)s", log)
    assert used, log
    assert float(used[1]) < 1.5 or not is_enforced(log, "cpu")


async def test_profiles_are_offered_with_their_limits(small: Server, base: str) -> None:
    async with small.connect() as session:
        answer, text = await ask_both(session, "status", {})
        offers = answer["offers"]
        assert offers["profiles"] == ["default", "large"]
        default, large = offers["profile_details"]
        assert (default["name"], large["name"], large["description"]) == ("default", "large", "for C++")
        assert "memory 256 MiB" in default["limits"]
        assert {"memory 2048 MiB", "1000 processes"} <= set(large["limits"])
        assert "profile large: for C++; memory 2048 MiB" in text
        arguments = {"source": files(Containerfile=f"FROM {base}\n"), "profile": "larg"}
        said = await refused(session, "build", arguments, "invalid_argument")
    assert "profile" in said and "did you mean large?" in said
    assert "default, large" in said


async def test_a_build_leaves_no_cgroup(plain: ClientSession, base: str) -> None:
    text = f"FROM {base}\nRUN true\n"
    status = await succeed(plain, source=files(Containerfile=text), tests=[{"command": "cat /proc/self/cgroup"}])
    log = await log_text(plain, status["build_id"])
    if limits_enforced("memory"):
        assert f"nomad-build-{status['build_id']}" in log, "it did not run in a cgroup of its own"
    assert not cgroups_of(status["build_id"])


async def test_the_cgroup_of_a_killed_job_goes(plain: ClientSession, base: str) -> None:
    marker = sleep_marker()
    build_id = await submit(plain, source=files(Containerfile=f"FROM {base}\nRUN sleep {marker}\n"))
    await wait_state(plain, build_id, "running", "build")
    await wait_for(lambda: processes_with(f"sleep {marker}"), "the sleep")
    if limits_enforced("memory"):
        assert cgroups_of(build_id)
    (job,) = [line for line in processes_with(build_id) if " runner job " in line]
    os.kill(int(job.split(":")[0]), signal.SIGKILL)
    status = await wait_final(plain, build_id)
    assert status["state"] == "lost", status
    assert not cgroups_of(build_id)
    assert not processes_with(f"sleep {marker}")


# The rest needs the sandbox: it sets the size of a file (RLIMIT_FSIZE), watches the disk with
# `runner::usage`, and hands what it saw to `runner::limits` as evidence.

WRITES = {
    "file_mb": ("dd if=/dev/zero of=/big bs=1M count=40", 16, "a file reached the limit of 16 MiB"),
    "disk_mb": (
        "for i in $(seq 30); do dd if=/dev/zero of=/f$i bs=1M count=10; done; sleep 60",
        100,
        "its limit of 100 MiB on the disk",
    ),
    "files": ("for i in $(seq 4000); do : >/f$i; done; sleep 60", 2000, "its limit of 2000 files and directories"),
}


@pytest.mark.parametrize("isolation", ["rootless", "chroot"])
@pytest.mark.parametrize("key", WRITES)
async def test_a_build_that_writes_too_much_is_told_its_limit(
    make_server: MakeServer, buildah: Path, base: str, isolation: str, key: str
) -> None:
    command, limit, message = WRITES[key]
    server = make_server(buildah=buildah, isolation=isolation, limits={key: limit})
    async with server.connect() as session:
        source = files(Containerfile=f"FROM {base}\nRUN {command}\n")
        status = await fail(session, "limit_reached", "code", source=source)
        assert f"{message} (limits.{key} of the profile default)" in status["failure"]["message"]
        assert (status["failure"]["line"], status["failure"]["phase"]) == (2, "build")
        tests = [{"name": "writes", "command": command}]
        status = await fail(session, "limit_reached", "code", source=files(Containerfile=f"FROM {base}\n"), tests=tests)
    assert message in status["failure"]["message"]
    assert (status["failure"]["test"], status["failure"]["phase"]) == ("writes", "test")
    assert not processes_left(status["build_id"])
