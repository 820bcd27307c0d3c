"""Credentials and secrets of a build: in memory as long as a phase needs them, never on a disk, in no core dump."""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import MakeServer
from endings import record
from git_http import GitHttp, commit, git
from helpers import ask, fail, files, sleep_marker, submit, succeed, wait_final, wait_for
from holding_proxy import HoldingProxy
from local_registry import LocalRegistry
from machine import ORDINARY_USER, private_dirs
from processes import job_of, of_build, running
from server import Server

SECRET = "s3cr3t of/the+operator"
GIT_PASSWORD = "p4ss/word+of-git"
OTHER = "of another/test+only"
OF_RUN = "of a/step+only"
IN_MEMORY = ("tmpfs", "ramfs")


def forms(secret: str) -> set[bytes]:
    """The secret as it may stand in a file."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {text.encode() for text in (secret, encoded, urllib.parse.quote(secret, safe=""))}


def found(directory: Path, *secrets: str) -> list[str]:
    """Files below the directory, on whatever mounts there are, that have one of them."""
    wanted = set().union(*(forms(secret) for secret in secrets))
    hits = []
    for at, _, names in os.walk(directory):
        for path in (Path(at, name) for name in names):
            try:
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            except OSError:
                # It vanishes, or only others may read it.
                continue
            hits += [str(path)] if any(form in content for form in wanted) else []
    return hits


def md5(secret: str) -> str:
    return hashlib.md5(secret.encode()).hexdigest()


def kind_of(path: Path) -> str:
    """The type of the file system that it is on."""
    return subprocess.run(["stat", "-f", "-c", "%T", str(path)], check=True, capture_output=True, text=True).stdout.strip()


def the_private_dir(build_id: str) -> Path:
    """The one directory in memory of a build."""
    (private,) = [path for path in private_dirs(build_id) if path.is_dir()]
    return private


async def asleep(server: Server, build_id: str, marker: str) -> None:
    """Waits until a command of the build sleeps."""

    def reached() -> bool:
        assert "end" not in record(server, build_id), (server.state / "b" / build_id / "log.ndjson").read_text()
        return bool(running("sleep", marker))

    await wait_for(reached, f"sleep {marker}", 120)


@dataclass
class Place:
    """A git server behind a proxy that holds what it is asked for."""

    git: HoldingProxy
    base: str

    @property
    def url(self) -> str:
        return f"http://{self.git.host}/repo.git"


@pytest.fixture(scope="module")
def place(auth_registry: LocalRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root, base = tmp_path_factory.mktemp("git"), f"{auth_registry.host}/test/base:1"
    (root / "work").mkdir()
    git(root / "work", "init", "--quiet", "--initial-branch=main")
    commit(root / "work", "main", {"README": "x\n"})
    (root / "served").mkdir()
    git(root, "clone", "--quiet", "--bare", str(root / "work"), str(root / "served/repo.git"))
    with GitHttp(root / "served") as server, HoldingProxy(server.url.removeprefix("http://")) as proxy:
        yield Place(proxy, base)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    for form in forms(SECRET):
        (tmp_path / "file").write_bytes(b"x" + form + b"x")
        assert found(tmp_path, SECRET) == [str(tmp_path / "file")]
    (tmp_path / "file").write_text("nothing")
    assert not found(tmp_path, SECRET)


@pytest.mark.parametrize("isolation", ["chroot", "rootless"])
async def test_nothing_secret_is_on_a_disk(
    make_server: MakeServer, place: Place, auth_registry: LocalRegistry, buildah: Path, isolation: str
) -> None:
    login = auth_registry.login
    assert login
    everything = (SECRET, GIT_PASSWORD, login.password, f"{login.user}:{login.password}", f"git:{GIT_PASSWORD}")
    server = make_server(buildah=buildah, isolation=isolation, secrets={"token": SECRET}, git_passwords={place.url: GIT_PASSWORD})
    build, test = sleep_marker(), sleep_marker()
    text = (
        f"FROM {place.base} AS first\n"
        "RUN --mount=type=secret,id=token,required=true,uid=1000,mode=0440 "
        f"wc -c < /run/secrets/token | grep -x {len(SECRET)} && sleep {build} || true\n"
        f"FROM {place.base}\n"
        "COPY --from=first /bin/sh /copied\n"
        f"RUN --mount=type=secret,id=token,required=true,target=/t md5sum /t | grep {md5(SECRET)}\n"
        "RUN test ! -s /run/secrets/token && test ! -s /t\n"
    )
    hold = place.git.hold("GET", "^/repo.git/")
    async with server.connect() as session:
        source = {"git": place.url} | files(Containerfile=text)
        build_id = await submit(session, source=source, secrets=["token"], tests=[{"command": f"sleep {test} || true"}])
        await wait_for(hold.reached.is_set, "the phase source")
        private = the_private_dir(build_id)
        assert kind_of(private) in IN_MEMORY
        assert found(private, SECRET) and found(private, GIT_PASSWORD) and found(private, f"{login.user}:{login.password}")
        assert not found(server.state, *everything)
        assert private.stat().st_mode & 0o777 == 0o700
        if os.geteuid() == 0:
            assert pwd.getpwuid(private.stat().st_uid).pw_name.startswith("nomad-build-")
        hold.release()

        await asleep(server, build_id, build)
        assert found(private, SECRET)
        assert not found(private, *everything[1:]), "credentials are gone before foreign code runs"
        assert not found(server.state, *everything)
        running("sleep", build)[0].kill()

        await asleep(server, build_id, test)
        assert not found(private, *everything)
        assert not found(server.state, *everything)
        running("sleep", test)[0].kill()
        status = await wait_final(session, build_id)
    assert status["state"] == "succeeded", status
    assert not private_dirs(build_id)
    assert not found(server.state, *everything)


@pytest.mark.parametrize("isolation", ["chroot", "rootless"])
async def test_a_test_finds_the_secrets_that_it_names(
    make_server: MakeServer, base: str, buildah: Path, isolation: str
) -> None:
    """Whichever user its image has; no step of the Containerfile and no other test does."""
    server = make_server(buildah=buildah, isolation=isolation, secrets={"token": SECRET, "other": OTHER, "of_run": OF_RUN})
    text = (
        f"FROM {base}\nRUN test ! -e /run/secrets/token\n"
        f"RUN --mount=type=secret,id=of_run md5sum /run/secrets/of_run | grep {md5(OF_RUN)}\nUSER 1000:1000\n"
    )
    marker = sleep_marker()
    check = f"md5sum /run/secrets/token | grep {md5(SECRET)} && ls /run/secrets | grep -x token"
    tests = [
        {"name": "one", "command": f"{check} && (echo x > /run/secrets/token; sleep {marker}; true)", "secrets": ["token"]},
        {"name": "two", "command": f"md5sum /run/secrets/other | grep {md5(OTHER)} && test ! -s /run/secrets/token", "secrets": ["other"]},
        {"name": "none", "command": "test ! -s /run/secrets/token && test ! -s /run/secrets/other && test ! -s /run/secrets/of_run"},
        {"name": "told", "command": "cat /run/secrets/other; ! cat /run/secrets/*[!r]", "secrets": ["other"]},
    ]
    async with server.connect() as session:
        build_id = await submit(session, source=files(Containerfile=text), secrets=["of_run"], tests=tests)
        await asleep(server, build_id, marker)
        private = the_private_dir(build_id)
        assert found(private, SECRET) and found(private, OTHER) and not found(private, OF_RUN)
        assert not found(server.state, SECRET, OTHER, OF_RUN)
        running("sleep", marker)[0].kill()
        status = await wait_final(session, build_id)
        assert status["state"] == "succeeded", status
        assert [test["status"] for test in status["tests"]] == ["passed"] * 4
        log = await ask(session, "logs", {"build_id": build_id, "from": "start"})
    assert "[secret]" in log["text"] and OTHER not in log["text"]
    assert not private_dirs(build_id) and not found(server.state, SECRET, OTHER, OF_RUN)


async def test_a_test_cannot_name_what_is_not_offered(make_server: MakeServer, base: str) -> None:
    async with make_server(secrets={"token": SECRET}).connect() as session:
        tests = [{"command": "true"}, {"command": "true", "secrets": ["token", "tokem"]}]
        result = await session.call_tool("build", {"source": files(Containerfile=f"FROM {base}\n"), "tests": tests})
    assert result.isError
    text = result.content[0].text
    assert "tests[1].secrets[1]" in text and "did you mean token" in text, text


async def test_foreign_code_sees_no_memory_of_the_host(make_server: MakeServer, auth_registry: LocalRegistry) -> None:
    text = (
        f"FROM {auth_registry.host}/test/base:1\n"
        "RUN --mount=type=secret,id=token ls /dev/shm /run /run/user 2>/dev/null | grep nomad-build && exit 1; "
        "ls -d /dev/shm/*/*/credentials /run/*/*/credentials 2>/dev/null && exit 1; true\n"
    )
    async with make_server(secrets={"token": SECRET}).connect() as session:
        await succeed(session, source=files(Containerfile=text), secrets=["token"])


async def reach_a_step(server: Server, base: str, marker: str) -> str:
    """Starts a build that sleeps with a secret; its id."""
    text = f"FROM {base}\nRUN --mount=type=secret,id=token cat /run/secrets/token > /dev/null && sleep {marker}\n"
    async with server.connect() as session:
        build_id = await submit(session, source=files(Containerfile=text), secrets=["token"])
        await asleep(server, build_id, marker)
    assert found(the_private_dir(build_id), SECRET) and not found(server.state, SECRET)
    return build_id


@pytest.mark.parametrize("user", [None, ORDINARY_USER] if os.geteuid() == 0 else [None])
async def test_nothing_is_left_of_a_build_that_is_killed(make_server: MakeServer, base: str, user: str | None) -> None:
    server = make_server(secrets={"token": SECRET}, user=user)
    build_id = await reach_a_step(server, base, sleep_marker())
    async with server.connect() as session:
        await session.call_tool("kill", {"build_id": build_id, "wait": 40})
        assert (await wait_final(session, build_id))["state"] == "cancelled"
    assert not private_dirs(build_id) and not found(server.state, SECRET)


@pytest.mark.parametrize("user", [None, ORDINARY_USER] if os.geteuid() == 0 else [None])
async def test_nothing_is_left_when_the_job_dies(make_server: MakeServer, base: str, user: str | None) -> None:
    server = make_server(secrets={"token": SECRET}, user=user)
    build_id = await reach_a_step(server, base, sleep_marker())
    job = job_of(build_id)
    assert job and job.kill()
    async with server.connect() as session:
        assert (await wait_final(session, build_id))["state"] == "lost"
        await wait_for(lambda: not private_dirs(build_id), "nothing left")
    assert not found(server.state, SECRET)


async def test_nothing_is_left_when_everything_dies(make_server: MakeServer, base: str) -> None:
    """Also where the build's own directory is gone: another server of this machine removes it."""
    server, other = make_server(secrets={"token": SECRET}), make_server()
    with server.raw() as raw:
        raw.initialize()
        build_id = await reach_a_step(server, base, sleep_marker())
        raw.kill()
    for process in of_build(build_id):
        process.kill()
    assert private_dirs(build_id)
    with other.raw() as raw:
        raw.initialize()
        await wait_for(lambda: not private_dirs(build_id), "nothing left")
    assert not found(server.state, SECRET)


async def test_a_server_leaves_what_a_job_that_lives_needs(make_server: MakeServer, base: str) -> None:
    server, other, marker = make_server(secrets={"token": SECRET}), make_server(), sleep_marker()
    build_id = await reach_a_step(server, base, marker)
    async with other.connect() as session:
        await succeed(session, source=files(Containerfile=f"FROM {base}\nRUN true\n"))
    assert found(the_private_dir(build_id), SECRET)
    running("sleep", marker)[0].kill()
    async with server.connect() as session:
        await wait_final(session, build_id)
    assert not private_dirs(build_id)


async def test_a_core_dump_cannot_be_had(make_server: MakeServer, base: str) -> None:
    server = make_server(secrets={"token": SECRET})
    build_id = await reach_a_step(server, base, sleep_marker())
    processes = of_build(build_id)
    with server.raw() as raw:
        raw.initialize()
        limits = {"server": core_limits(raw.process.pid)}
        for process in processes:
            # One that lives for a moment may be gone; those that must be there are named below.
            with suppress(FileNotFoundError, ProcessLookupError):
                limits[process.role] = core_limits(process.pid)
    async with server.connect() as session:
        await session.call_tool("kill", {"build_id": build_id, "wait": 40})
    assert {"server", "runner job", "runner build", "buildah build", "sleep"} <= limits.keys()
    # One byte also keeps the kernel from handing a dump to a program. Others forbid themselves even that.
    ours = {role: limit for role, limit in limits.items() if role.startswith(("server", "runner", "buildah"))}
    assert set(ours.values()) == {("1", "1")}, limits
    assert set(limits.values()) <= {("1", "1"), ("0", "0")}, limits


def core_limits(pid: int) -> tuple[str, str]:
    """The soft and the hard limit on core dumps of a process, in bytes."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("Max core file size")]
    soft, hard, _ = line.removeprefix("Max core file size").split()
    return soft, hard


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user cannot take the tmpfs away")
async def test_without_a_tmpfs_nothing_secret_is_built_with(make_server: MakeServer, registry: LocalRegistry, base: str) -> None:
    hide = "mount --bind /var/tmp /dev/shm"
    if kind_of(Path("/run")) in IN_MEMORY:
        hide += " && mkdir -p /run/nomad-build-private && mount --bind /var/tmp /run/nomad-build-private"
    within = ["unshare", "--mount", "sh", "-c", f'{hide} && exec "$@"', "sh"]
    server = make_server(insecure=[registry], secrets={"token": SECRET}, within=within)
    # A login of this machine would be a secret of every build.
    server.env["XDG_RUNTIME_DIR"] = str(server.directory)
    async with server.connect() as session:
        await succeed(session, source=files(Containerfile=f"FROM {base}\nRUN true\n"))
        source = files(Containerfile=f"FROM {base}\nRUN --mount=type=secret,id=token true\n")
        failure = (await fail(session, "internal", "operator", source=source, secrets=["token"]))["failure"]
    assert "no tmpfs" in failure["message"] and "/dev/shm/nomad-build-0" in failure["message"], failure
    assert not found(server.state, SECRET)
    assert not Path("/var/tmp/nomad-build-0").exists()
