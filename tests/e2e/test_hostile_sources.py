"""Repositories, patches and directories made to fill a disk, a memory or an hour, or to lead out of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import MakeServer
from git_http import GitHttp, SilentServer, commit, git
from helpers import fail, file_source, log_text, refused, submit, succeed, wait_final, wait_for
from machine import processes_left
from mcp import ClientSession
from server import Server

SMALL = {"context_mb": 1, "context_entries": 50}
BYTES = "more than 1 MiB (limits.context_mb)"
ENTRIES = "more than 50 files and directories (limits.context_entries)"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty repository with a tree."""
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    return work


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Serves what a repository holds now; gives the URL."""
    root = tmp_path / "served"
    root.mkdir()
    with GitHttp(root) as server:

        def serve(work: Path) -> str:
            git(root, "clone", "--quiet", "--bare", str(work), str(root / "repo.git"))
            return f"{server.url}/repo.git"

        yield serve


def _nothing_left(server: Server, build_id: str) -> None:
    assert not (server.state / "b" / build_id / "work").exists()
    assert not processes_left(build_id)


async def test_a_small_pack_of_a_big_tree(
    make_server: MakeServer, work: Path, served: Callable[[Path], str], base: str
) -> None:
    commit(work, "zeros", {"Containerfile": f"FROM {base}\n", "zeros": "\0" * (2 << 20)})
    server = make_server(limits=SMALL)
    async with server.connect() as session:
        status = await fail(session, "source_invalid", "request", source={"git": served(work)})
    assert status["failure"]["message"] == f"the source has {BYTES}"
    assert status["failure"]["phase"] == "source"
    _nothing_left(server, status["build_id"])


async def test_a_tree_of_more_files_than_a_disk_holds(
    make_server: MakeServer, work: Path, served: Callable[[Path], str]
) -> None:
    kind, mode, below = "blob", "100644", git(work, "hash-object", "-w", "--stdin", stdin="x").strip()
    for _ in range(10):
        lines = "".join(f"{mode} {kind} {below}\td{n}\n" for n in range(10))
        kind, mode, below = "tree", "040000", git(work, "mktree", stdin=lines).strip()
    bomb = git(work, "commit-tree", "-m", "bomb", below).strip()
    git(work, "update-ref", "refs/heads/main", bomb)
    server = make_server(limits=SMALL)
    async with server.connect() as session:
        status = await fail(session, "source_invalid", "request", source={"git": served(work)})
    assert status["failure"]["message"] == f"the source has {ENTRIES}"
    _nothing_left(server, status["build_id"])


@pytest.mark.parametrize("over", ["patch", "files"])
async def test_what_lies_over_a_checkout_counts(
    make_server: MakeServer, work: Path, served: Callable[[Path], str], base: str, over: str
) -> None:
    almost = "\0" * ((1 << 20) - 1000)
    commit(work, "almost", {"Containerfile": f"FROM {base}\nRUN true\n", "zeros": almost})
    source = {"git": served(work)}
    more = "x\n" * 2000
    if over == "files":
        source |= file_source({"more": more})
    else:
        (work / "more").write_text(more)
        git(work, "add", "more")
        source["patch"] = git(work, "diff", "--cached", "--binary")
    server = make_server(limits=SMALL)
    async with server.connect() as session:
        await succeed(session, source={"git": source["git"]})
        status = await fail(session, "source_invalid", "request", source=source)
    assert status["failure"]["message"] == f"the source has {BYTES}"


async def test_submodules_are_named_and_not_fetched(
    plain: ClientSession, work: Path, served: Callable[[Path], str], base: str
) -> None:
    first = commit(work, "x", {"Containerfile": f"FROM {base}\nCOPY . /x\nRUN ls -A /x/lib/one | wc -l\n"})
    (work / ".gitmodules").write_text('[submodule "one"]\n\tpath = lib/one\n\turl = https://example.com/one\n')
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{first},lib/one")
    git(work, "add", ".gitmodules")
    git(work, "commit", "--quiet", "--message", "submodule")
    status = await succeed(plain, source={"git": served(work)})
    told = await log_text(plain, status["build_id"], phase="source")
    assert "submodules are not fetched, they are empty directories: lib/one" in told


@pytest.mark.parametrize("target", ["/etc", "../..", ".git"])
async def test_a_subdirectory_does_not_lead_out(
    plain: ClientSession, work: Path, served: Callable[[Path], str], base: str, target: str
) -> None:
    (work / "sub").symlink_to(target)
    commit(work, "link", {"Containerfile": f"FROM {base}\n"})
    status = await fail(plain, "source_invalid", "request", source={"git": served(work), "subdir": "sub"})
    assert "subdir" in status["failure"]["message"]


@pytest.mark.parametrize("name", ["Containerfile", ".containerignore"])
@pytest.mark.parametrize("target", ["inside", "outside"])
async def test_links_as_control_files(
    plain: ClientSession, work: Path, served: Callable[[Path], str], tmp_path: Path, base: str, name: str, target: str
) -> None:
    text = {"Containerfile": f"FROM {base}\nRUN echo canary\n", ".containerignore": "canary\n"}
    outside = tmp_path / "outside"
    outside.write_text(text[name])
    commit(work, "x", {"real": text[name]} | {other: text[other] for other in text if other != name})
    (work / name).symlink_to(outside if target == "outside" else "real")
    commit(work, "link", {})
    source = {"git": served(work)}
    if target == "inside":
        await succeed(plain, source=source)
        return
    status = await fail(plain, "source_invalid", "request", source=source)
    assert f"{name}: leaves the context" in status["failure"]["message"]
    assert "canary" not in await log_text(plain, status["build_id"])


async def test_a_containerfile_without_end(
    plain: ClientSession, work: Path, served: Callable[[Path], str], tmp_path: Path, base: str
) -> None:
    with (work / "Containerfile").open("w") as huge:
        huge.write(f"FROM {base}\n")
        huge.truncate(8 << 20)
    source = {"path": str(work)}
    text = await refused(plain, "build", {"source": source, "validate_only": True}, "invalid_argument")
    assert "more than 1048576 bytes" in text
    status = await fail(plain, "containerfile_invalid", "code", source=source)
    assert "more than 1048576 bytes" in status["failure"]["message"]


async def test_an_ignore_file_without_end(
    plain: ClientSession, work: Path, served: Callable[[Path], str], base: str
) -> None:
    commit(work, "x", {"Containerfile": f"FROM {base}\n", ".containerignore": "x\n" * 200_000})
    status = await fail(plain, "source_invalid", "request", source={"git": served(work)})
    assert ".containerignore: is bigger than 262144 bytes" in status["failure"]["message"]


async def test_a_server_that_trickles_is_left_at_the_deadline(plain_server: Server, plain: ClientSession) -> None:
    with SilentServer(trickle=True) as server:
        build_id = await submit(plain, source={"git": f"{server.url}/x"}, timeout=5)
        await wait_for(server.asked.is_set, "git asks")
        status = await wait_final(plain, build_id, 60)
    assert status["state"] == "timed_out", status
    assert status["failure"]["phase"] == "source"
    _nothing_left(plain_server, build_id)
