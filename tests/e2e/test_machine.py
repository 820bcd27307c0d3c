"""The look for what builds leave behind finds each kind of it; otherwise no test that relies on it could fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import some_build_id, unique, wait_for
from machine import Before
from processes import Process, look, namespaces, of_build, role, table

ROOT = os.geteuid() == 0
# Nobody's, so that nothing else on the machine is this user's.
BUILD_USER = 987654


@pytest.fixture
def directory() -> Iterator[Path]:
    """A server's directory with one build that has ended."""
    directory = Path(tempfile.mkdtemp(prefix="nomad-build-machine-"))
    (directory / "state/b" / some_build_id()).mkdir(parents=True)
    (directory / "state/cache/user").mkdir(parents=True)
    if ROOT:
        os.chown(directory / "state/cache/user", BUILD_USER, -1)
    (directory / "state/queue").mkdir()
    (directory / "state/staging").mkdir()
    yield directory
    shutil.rmtree(directory)


def build_id_in(directory: Path) -> str:
    """The build in it."""
    return next((directory / "state/b").iterdir()).name


@contextmanager
def orphan(*command: str, env: dict[str, str] | None = None, uid: int | None = None) -> Iterator[Process]:
    """A process that nobody's children are looked through for: its parent is gone."""
    start = 'setsid "$@" >/dev/null 2>&1 & echo $!'
    line = ["sh", "-c", start, "sh", *command]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, env=env or {"PATH": os.environ["PATH"]}, user=uid)
    process = look(int(done.stdout))
    assert process
    try:
        yield process
    finally:
        process.kill()


async def reported(before: Before, what: str) -> None:
    """Waits until this is among what is left."""
    await wait_for(lambda: any(what in text for text in before.left()), f"{what} to be reported", 10)


async def test_nothing_is_reported_where_nothing_is(directory: Path) -> None:
    before = Before(directory)
    assert before.left() == []


async def test_a_process_with_a_mark(directory: Path) -> None:
    before, build_id = Before(directory), build_id_in(directory)
    with orphan("sleep", "60", env={"PATH": os.environ["PATH"], "NOMAD_BUILD_ID": build_id}) as process:
        await reported(before, f"process {process.pid} ")
        assert [found.pid for found in of_build(build_id)] == [process.pid]
    await wait_for(lambda: not before.left(), "its end", 10)


async def test_a_process_whose_directory_it_is(directory: Path) -> None:
    before = Before(directory)
    with orphan("sh", "-c", f"cd {directory} && exec sleep 60") as process:
        await reported(before, f"process {process.pid} ")


async def test_a_process_of_another_build_does_not_count(directory: Path) -> None:
    before = Before(directory)
    with orphan("sleep", "60", env={"PATH": os.environ["PATH"], "NOMAD_BUILD_ID": some_build_id()}):
        assert before.left() == []


@pytest.mark.parametrize("kind", ["file", "staged", "ticket"])
async def test_a_file(directory: Path, kind: str) -> None:
    before, build_id = Before(directory), build_id_in(directory)
    path = {
        "file": directory / "state/b" / build_id / "record.17.new",
        "staged": directory / "state/staging" / f"build-{build_id}",
        "ticket": directory / "state/queue" / f"00000000001795453189-{build_id}",
    }[kind]
    path.touch()
    await reported(before, f"{kind} {path}")


if ROOT:

    async def test_a_process_of_the_build_user_without_a_mark(directory: Path) -> None:
        before = Before(directory)
        with orphan("sleep", "60", uid=BUILD_USER) as process:
            await reported(before, f"process {process.pid} ")

    @pytest.mark.parametrize("kind", ["mnt", "pid", "net", "user"])
    async def test_a_namespace_with_a_process(directory: Path, kind: str) -> None:
        before = Before(directory)
        option = {"mnt": "--mount", "pid": "--pid", "net": "--net", "user": "--user"}[kind]
        with orphan("unshare", option, "--fork", "--kill-child", "sleep", "60"):
            await reported(before, f"namespace {kind}:[")

    async def test_a_namespace_with_the_number_of_one_that_was_there(directory: Path) -> None:
        with orphan("unshare", "--net", "sleep", "60") as holder:
            net = f"/proc/{holder.pid}/ns/net"
            await wait_for(lambda: os.stat(net).st_ino != os.stat("/proc/self/ns/net").st_ino, "the namespace", 10)
            before = Before(directory)
            with orphan("nsenter", f"--net={net}", "sleep", "60"):
                await wait_for(lambda: len(namespaces(table().values())[os.readlink(net)]) == 2, "both to be in it", 10)
                assert before.left() == []
                holder.kill()
                # To whoever looks, it cannot be told from a new one with the same number.
                await reported(before, "namespace net:[")

    async def test_a_mount_namespace_where_another_build_has_a_mount(directory: Path) -> None:
        of_another = directory / "b" / some_build_id()
        of_another.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(of_another)], check=True)
        try:
            before = Before(directory)
            # What it says of that build is what this mount namespace says.
            with orphan("unshare", "--mount", "sleep", "60"):
                await reported(before, "namespace mnt:[")
        finally:
            subprocess.run(["umount", str(of_another)], check=True)

    async def test_a_namespace_held_by_a_mount(directory: Path, tmp_path: Path) -> None:
        before = Before(directory)
        handle = tmp_path / "net"
        handle.touch()
        subprocess.run(["unshare", f"--net={handle}", "true"], check=True)
        try:
            await reported(before, f"mount {handle} (nsfs)")
        finally:
            subprocess.run(["umount", str(handle)], check=True)

    async def test_a_mount(directory: Path) -> None:
        before = Before(directory)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(directory / "state/b")], check=True)
        try:
            await reported(before, f"mount {directory}/state/b (tmpfs)")
        finally:
            subprocess.run(["umount", str(directory / "state/b")], check=True)

    @pytest.mark.parametrize("name", ["of-{id}", "buildah-{unique}"])
    async def test_a_cgroup(directory: Path, name: str) -> None:
        before = Before(directory)
        parent = next(p for p in map(Path, ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")) if p.is_dir())
        cgroup = parent / name.format(id=build_id_in(directory), unique=unique())
        cgroup.mkdir()
        try:
            await reported(before, f"cgroup {cgroup}")
        finally:
            cgroup.rmdir()

    async def test_a_scratch_file(directory: Path) -> None:
        before = Before(directory)
        with tempfile.NamedTemporaryFile(dir="/var/tmp", prefix="buildah") as file:
            os.chown(file.name, BUILD_USER, -1)
            await reported(before, f"scratch {file.name}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/x/nb serve", "server"),
        ("/x/nb runner job --dir /y", "runner job"),
        ("/x/anything runner enclose --spec y", "runner enclose"),
        ("/x/nb runner unshare --first -- /x/nb runner enclose --spec y", "runner unshare"),
        ("/usr/bin/buildah --root /x pull --policy always", "buildah pull"),
        ("/usr/bin/buildah-in-a-user-namespace --root /x pull y", "inner buildah pull"),
        ("/usr/bin/runc create --bundle x", "runc create"),
        ("/usr/lib/git-core/git remote-http origin x", "git remote-http"),
        ("git --no-pager -c x fetch", "git"),
        ("pasta --config-net 17", "pasta"),
    ],
)
def test_roles(line: str, expected: str) -> None:
    assert role(line.split()) == expected
