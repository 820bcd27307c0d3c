"""Started as root, each build runs as an account that no other build on the machine has."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import MakeServer
from helpers import ask, files, sleep_marker, some_build_id, status_of, submit, succeed, unique, wait_final, wait_for
from machine import processes_with
from mcp import ClientSession
from server import Server, binary

# Two accounts of the tests' own, so that all can be taken without any other server being in the way.
POOL = "nomad-build-test"


@pytest.fixture(scope="session", autouse=True)
def _pool() -> None:
    subprocess.run([binary(), "setup", "--prefix", POOL, "--users", "2"], check=True)


@dataclass(frozen=True)
class Process:
    """What the kernel says about a process."""

    uids: frozenset[int]
    gids: frozenset[int]
    groups: frozenset[int]
    id_maps: dict[str, list[range]]
    """Ids outside of the user namespace, for users and groups."""


def look(pid: str) -> Process:
    """Reads /proc."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    ids = {name: frozenset(map(int, fields[name].split())) for name in ("Uid", "Gid", "Groups")}
    maps = {}
    for kind in ("uid", "gid"):
        rows = [list(map(int, line.split())) for line in Path(f"/proc/{pid}/{kind}_map").read_text().splitlines()]
        maps[kind] = [range(outside, outside + count) for _, outside, count in rows]
    return Process(ids["Uid"], ids["Gid"], ids["Groups"], maps)


def process_of(text: str) -> str | None:
    """The first process whose command line has the text."""
    found = processes_with(text)
    return found[0].split(":")[0] if found else None


def subordinate(kind: str, name: str) -> list[range]:
    """Ranges of an account in /etc/subuid or /etc/subgid."""
    rows = (line.split(":") for line in Path(f"/etc/sub{kind}").read_text().splitlines())
    return [range(int(first), int(first) + int(count)) for owner, first, count in rows if owner == name]


def apart(one: range, other: range) -> bool:
    return one.stop <= other.start or other.stop <= one.start


async def start(session: ClientSession, base: str) -> tuple[str, str]:
    """Starts a build that sleeps; returns its id and the words by which its process is known."""
    words = f"sleep {sleep_marker()}"
    return await submit(session, source=files(Containerfile=f"FROM {base}\nRUN {words}\n"), name=unique("b")), words


async def account_of(session: ClientSession, build: tuple[str, str]) -> str:
    """The account that the RUN of a started build runs as."""
    build_id, words = build
    try:
        pid = await wait_for(lambda: process_of(words), words, 120)
    except AssertionError as error:
        raise AssertionError(await status_of(session, build_id)) from error
    # In its user namespace it is root; outside that is the account.
    (uid,) = look(pid).uids
    return pwd.getpwuid(uid).pw_name


@contextlib.contextmanager
def running_as(uid: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that an earlier build of an account could have left."""
    command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "sleep", sleep_marker()]
    process = subprocess.Popen(command, cwd="/")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("isolation", ["rootless", "chroot"])
async def test_builds_at_the_same_time_share_no_id(
    make_server: MakeServer, buildah: Path, base: str, isolation: str
) -> None:
    server = make_server(buildah=buildah, isolation=isolation, slots=3)
    async with server.connect() as session:
        builds = [await start(session, base) for _ in range(3)]
        names = [await account_of(session, build) for build in builds]
        assert len(set(names)) == 3, names
        seen = []
        for (build_id, words), name in zip(builds, names, strict=True):
            account = pwd.getpwnam(name)
            runner = look(process_of(f"--work {server.state}/b/{build_id}/work") or "")
            assert (runner.uids, runner.gids) == ({account.pw_uid}, {account.pw_gid})
            assert runner.groups == frozenset(), "root's groups were not dropped"
            process = look(process_of(words) or "")
            allowed = {kind: subordinate(kind, name) for kind in ("uid", "gid")}
            assert process.gids | process.groups <= {account.pw_gid}.union(*allowed["gid"])
            for kind, own in (("uid", account.pw_uid), ("gid", account.pw_gid)):
                for ids in process.id_maps[kind]:
                    assert ids == range(own, own + 1) or ids in allowed[kind], (kind, ids)
            seen.append(process)
        for one, other in itertools.combinations(seen, 2):
            for kind in ("uid", "gid"):
                maps = itertools.product(one.id_maps[kind], other.id_maps[kind])
                assert all(apart(a, b) for a, b in maps), (one, other)
        for build_id, _ in builds:
            await ask(session, "kill", {"build_id": build_id})


async def test_what_an_earlier_build_left_is_gone_before_the_next_begins(make_server: MakeServer, base: str) -> None:
    server = make_server(slots=1, accounts=POOL)
    account = pwd.getpwnam(f"{POOL}-0")
    # A build that died left its work directory, too.
    left = server.state / "b" / some_build_id() / "work"
    left.mkdir(parents=True)
    left.chmod(0o700)
    os.chown(left, account.pw_uid, account.pw_gid)
    server.state.chmod(0o711)
    (server.state / "b").chmod(0o711)
    with (
        running_as(account.pw_uid) as own,
        running_as(subordinate("uid", account.pw_name)[0].stop - 1) as subordinates,
        running_as(pwd.getpwnam(f"{POOL}-1").pw_uid) as others,
    ):
        async with server.connect() as session:
            build_id, words = build = await start(session, base)
            await ask(session, "status", {"build_id": build_id, "until": "started", "wait": 50})
            assert own.poll() == -9 and subordinates.poll() == -9
            assert others.poll() is None, "the account of another build was cleared"
            assert await account_of(session, build) == account.pw_name
            assert left.stat().st_uid == 0, "the next build of the account can read it"
            await ask(session, "kill", {"build_id": build_id})


@contextlib.asynccontextmanager
async def two_servers(make_server: MakeServer) -> AsyncIterator[tuple[ClientSession, ClientSession]]:
    """Connections to servers with different state directories and the same two accounts."""
    servers: list[Server] = [make_server(slots=3, accounts=POOL) for _ in range(2)]
    async with servers[0].connect() as one, servers[1].connect() as other:
        yield one, other


async def test_two_servers_share_no_account_and_wait_for_a_free_one(make_server: MakeServer, base: str) -> None:
    async with two_servers(make_server) as (one, other):
        first, second = await start(one, base), await start(other, base)
        names = {await account_of(one, first), await account_of(other, second)}
        assert names == {f"{POOL}-0", f"{POOL}-1"}

        waiting = [await start(one, base) for _ in range(2)]

        async def says_why() -> bool:
            queues = [(await status_of(one, build_id)).get("queue", {}) for build_id, _ in waiting]
            return all(queue.get("code") == "users_busy" for queue in queues)

        await wait_for(says_why, "both waiting for a user")
        for position, (build_id, _) in enumerate(waiting, 1):
            status = await status_of(one, build_id)
            assert status["state"] == "queued"
            assert status["queue"]["position"] == position
            assert "all 2 build users of this machine are taken" in status["queue"]["reason"]

        # The other server's build gives its account back: to the one that waits longest.
        await ask(other, "kill", {"build_id": second[0]})
        assert await account_of(one, waiting[0]) in names
        assert (await status_of(one, waiting[1][0]))["state"] == "queued"
        await ask(one, "kill", {"build_id": waiting[0][0]})
        assert await account_of(one, waiting[1]) in names
        for build_id in (first[0], waiting[1][0]):
            await ask(one, "kill", {"build_id": build_id})


async def test_a_build_that_waits_for_an_account_can_be_killed_and_gives_up(
    make_server: MakeServer, base: str
) -> None:
    async with two_servers(make_server) as (one, other):
        running = [await start(other, base) for _ in range(2)]
        for build in running:
            await account_of(other, build)
        waiting, _ = await start(one, base)
        answer = await ask(one, "kill", {"build_id": waiting})
        assert (answer["kill_result"], answer["state"]) == ("cancelled", "cancelled")
        source = files(Containerfile=f"FROM {base}\nRUN echo {unique()}\n")
        impatient = await submit(one, source=source, queue_timeout=2)
        failure = (await wait_final(one, impatient))["failure"]
        assert (failure["kind"], failure["fault"]) == ("queue_timed_out", "operator")
        for build_id, _ in running:
            await ask(other, "kill", {"build_id": build_id})


async def test_a_dead_job_gives_its_account_back(make_server: MakeServer, base: str) -> None:
    server = make_server(slots=3, accounts=POOL)
    async with server.connect() as session:
        lost, _ = await start(session, base)
        # It has the only other account.
        other, _ = await start(session, base)
        job = process_of(f"runner job --dir {server.state}/b/{lost}")
        assert job
        os.kill(int(job), 9)
        assert (await wait_final(session, lost))["state"] == "lost"
        await succeed(session, source=files(Containerfile=f"FROM {base}\n"))
        assert (await status_of(session, other))["state"] == "running"
        await ask(session, "kill", {"build_id": other})


def test_without_accounts_the_server_does_not_start_and_says_what_to_run(make_server: MakeServer) -> None:
    server = make_server(accounts="nomad-build-none")
    run = subprocess.run(server.command, env=server.env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == ""
    assert "nomad-build-none-0" in run.stderr
    assert "nomad-build setup --prefix nomad-build-none" in run.stderr
    check = subprocess.run([binary(), "check"], env=server.env, capture_output=True, text=True)
    line = "missing  nomad-build-none-0: not there; mend it: nomad-build setup --prefix nomad-build-none"
    assert check.returncode == 1 and line in check.stdout.splitlines()


def test_setup_makes_what_is_missing_and_nothing_twice() -> None:
    before = Path("/etc/subuid").read_text()
    dry = subprocess.run(
        [binary(), "setup", "--prefix", "nomad-build-none", "--users", "2", "--dry-run"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    made = [line.split()[-1] for line in dry if line.startswith("useradd ")]
    assert made == ["nomad-build-none-0", "nomad-build-none-1"]
    ranges = [line.split()[2] for line in dry if line.startswith("usermod --add-subuids ")]
    assert len(set(ranges)) == 2
    for more in ([], ["--dry-run"]):
        again = subprocess.run([binary(), "setup", "--prefix", POOL, "--users", "1", *more], check=True, capture_output=True)
        assert again.stdout.decode().splitlines() == [f"2 accounts for builds, {POOL}-0 to {POOL}-1: all there"]
    assert Path("/etc/subuid").read_text() == before
    assert "nomad-build-none" not in Path("/etc/passwd").read_text()


async def test_the_program_may_lie_where_accounts_cannot_go(
    make_server: MakeServer, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where cargo installs it for root."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "nomad-build"
    shutil.copy(binary(), program)
    monkeypatch.setenv("NOMAD_BUILD_BIN", str(program))
    server = make_server(accounts=POOL)
    checked = subprocess.run([*server.command[:-1], "check", "--json"], env=server.env, capture_output=True, text=True)
    assert "sandbox" in checked.stdout and "Permission denied" not in checked.stdout, checked
    async with server.connect() as session:
        source = files(Containerfile=f"FROM {base}\nRUN echo {unique()}\n")
        await succeed(session, source=source, tests=[{"command": "true"}])
        await wait_for(lambda: list(server.state.glob("cache/*/swept")), "its cache is swept")
