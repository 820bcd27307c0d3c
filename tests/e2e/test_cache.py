"""Layers are kept between builds, each in the scope it belongs to; what is damaged is built anew."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeServer
from git_http import GitHttp, commit, git
from helpers import log_text, run, sleep_marker, status_of, submit, succeed, unique, wait_final, wait_for
from images import extend
from local_registry import LocalRegistry
from machine import ORDINARY_USER
from mcp import ClientSession
from processes import running
from server import Server

# A step whose result shows whether it ran again, and one that depends on the sources.
TEXT = "FROM {base}\nRUN cat /proc/sys/kernel/random/uuid > /stamp\nCOPY word /word\nRUN cat /proc/sys/kernel/random/uuid > /late\n"
SHOW = "echo early $(cat /stamp) late $(cat /late) word $(cat /word)"


class Repository:
    """A repository on a server."""

    def __init__(self, root: Path, base: str) -> None:
        self.work = root / "work"
        self.work.mkdir()
        self.served = root / "served/repo.git"
        git(self.work, "init", "--quiet", "--initial-branch=main")
        commit(self.work, "first", {"Containerfile": TEXT.format(base=base), "word": "committed\n"})
        git(self.work, "branch", "dev")
        git(root, "clone", "--quiet", "--bare", str(self.work), str(self.served))

    def commit(self, word: str) -> None:
        """A new commit on main."""
        commit(self.work, word, {"word": f"{word}\n"})
        git(self.work, "push", "--quiet", str(self.served), "main")


@pytest.fixture
def repository(tmp_path: Path, base: str) -> Repository:
    return Repository(tmp_path, base)


@pytest.fixture
def url(repository: Repository) -> Iterator[str]:
    with GitHttp(repository.served.parent) as server:
        yield f"{server.url}/repo.git"


async def stamps(session: ClientSession, **args: object) -> tuple[str, str, str]:
    """What the two steps left, and the word."""
    status = await succeed(session, tests=[{"command": SHOW}], **args)
    text = await log_text(session, status["build_id"], phase="test")
    found = re.search(r"early ([0-9a-f-]{36}) late ([0-9a-f-]{36}) word (\S+)", text)
    assert found, text
    return found[1], found[2], found[3]


PATCH = """diff --git a/word b/word
--- a/word
+++ b/word
@@ -1 +1 @@
-committed
+patched
"""


async def test_layers_stay_in_their_scope(make_server: MakeServer, buildah: Path, repository: Repository, url: str) -> None:
    async with make_server(buildah=buildah).connect() as session:
        main = await stamps(session, source={"git": url, "ref": "main"})
        assert await stamps(session, source={"git": url, "ref": "main"}) == main
        # Another ref shares nothing.
        dev = await stamps(session, source={"git": url, "ref": "dev"})
        assert (dev[0], dev[1]) != (main[0], main[1]) and dev[0] != main[0]
        # Uncommitted work reads what its ref has, and leaves nothing there.
        patched = await stamps(session, source={"git": url, "ref": "main", "patch": PATCH})
        assert patched[0] == main[0] and patched[1] != main[1] and patched[2] == "patched"
        assert await stamps(session, source={"git": url, "ref": "main", "patch": PATCH}) == patched
        repository.commit("patched")
        committed = await stamps(session, source={"git": url, "ref": "main"})
        assert committed[0] == main[0] and committed[2] == "patched"
        assert committed[1] != patched[1], "a layer of uncommitted work reached the scope of the ref"


async def test_a_directory_has_a_scope_of_its_own(make_server: MakeServer, base: str) -> None:
    server = make_server()
    first, second = server.directory / "first", server.directory / "second"
    for directory in (first, second):
        directory.mkdir()
        (directory / "Containerfile").write_text(TEXT.format(base=base))
        (directory / "word").write_text("x")
    async with server.connect() as session:
        one = await stamps(session, source={"path": str(first)})
        assert await stamps(session, source={"path": str(first)}) == one
        assert (await stamps(session, source={"path": str(second)}))[0] != one[0]
        # Anew, and later builds get the new layers.
        anew = await stamps(session, source={"path": str(first)}, no_cache=True)
        assert anew[0] != one[0]
        assert await stamps(session, source={"path": str(first)}) == anew


async def test_unpacked_sources_are_taken_only_as_they_were(make_server: MakeServer, base: str) -> None:
    server = make_server()
    directory, said = server.directory / "project", "the sources are those of the last build"
    (directory / "sub").mkdir(parents=True)
    word = directory / "sub/word"
    word.write_text("one")
    (directory / "Containerfile").write_text(f"FROM {base}\nCOPY sub /sub\n")

    async with server.connect() as session:

        async def build(**args: object) -> tuple[bool, str]:
            """Whether its sources were there, and what the word is in the image."""
            status = await succeed(session, source={"path": str(directory)}, tests=[{"command": "cat /sub/word"}], **args)
            text = await log_text(session, status["build_id"])
            assert not (server.state / "b" / status["build_id"] / "work").exists()
            return said in text, text

        def is_(answer: tuple[bool, str], kept: bool, word: str) -> bool:
            return answer[0] == kept and f"| {word}\n" in answer[1] + "\n"

        assert is_(await build(), False, "one")
        assert is_(await build(), True, "one")
        assert is_(await build(no_cache=True), False, "one")
        assert is_(await build(), True, "one")
        word.write_text("two")
        assert is_(await build(), False, "two")
        assert is_(await build(), True, "two")
        # Somebody touches what is kept.
        [kept] = server.state.glob("cache/*/*/scopes/*/sources/tree/sub/word")
        times = kept.stat()
        kept.write_text("bad")
        os.utime(kept, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert is_(await build(), False, "two")
        assert is_(await build(), True, "two")
        failed = await run(session, source={"path": str(directory)}, tests=[{"command": "exit 3"}])
        assert failed["state"] == "failed"
        assert is_(await build(), True, "two")


async def test_a_scope_begins_anew_while_its_layers_are_read(make_server: MakeServer, url: str, base: str) -> None:
    server = make_server(user=ORDINARY_USER, slots=2)
    marker, ref = sleep_marker(), {"git": url, "ref": "main"}
    async with server.connect() as session:
        old = await stamps(session, source=ref)
        # Uncommitted work reads the layers of its ref.
        text = TEXT.format(base=base) + f"RUN sleep {marker} || true\n"
        reader = await submit(session, source=ref | {"files": [{"path": "Containerfile", "text": text}]})
        await wait_for(lambda: running("sleep", marker), "the reader")
        new = await stamps(session, source=ref, no_cache=True)
        assert new[0] != old[0]
        assert await stamps(session, source=ref) == new
        os.kill(running("sleep", marker)[0].pid, signal.SIGTERM)
        assert (await wait_final(session, reader))["state"] == "succeeded"
        # What is of no more use goes, and the new layers stay.
        assert await stamps(session, source=ref) == new
        assert not list((server.state / "cache").glob("*/*/scopes/*/stale"))


async def test_cache_mounts_belong_to_the_scope(make_server: MakeServer, buildah: Path, base: str) -> None:
    text = "FROM {base}\nRUN --mount=type=cache,target=/c echo {word} >> /c/words && cat /c/words > /seen\n"

    def source(word: str) -> dict[str, object]:
        return {"files": [{"path": "Containerfile", "text": text.format(base=base, word=word)}]}

    async def seen(session: ClientSession, **args: object) -> str:
        status = await succeed(session, tests=[{"command": "echo seen $(cat /seen)"}], **args)
        return re.search(r"seen (.*)", await log_text(session, status["build_id"], phase="test"))[1]

    async with make_server(buildah=buildah).connect() as session:
        assert await seen(session, name="a", source=source("one")) == "one"
        assert await seen(session, name="a", source=source("two")) == "one two"
        assert await seen(session, name="b", source=source("three")) == "three"


def stores(server: Server, part: str) -> list[Path]:
    """Stores of layers or base images in the cache of the server."""
    found = list((server.state / "cache").glob(f"*/*/{part}"))
    assert found, f"no {part} in the cache"
    return found


def break_layers(store: Path) -> None:
    for diff in (store / "overlay").glob("*/diff"):
        shutil.rmtree(diff)


def break_index(store: Path) -> None:
    index = store / "overlay-layers/layers.json"
    index.write_text(index.read_text()[:40])


def break_list(store: Path) -> None:
    images = store / "overlay-images/images.json"
    images.write_text(images.read_text()[:40])


def break_file(store: Path) -> None:
    changed = [path for path in (store / "overlay").glob("*/diff/stamp")]
    assert changed
    for path in changed:
        path.write_text("not what the step wrote\n")


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("scopes/*/store", break_layers),
        ("scopes/*/store", break_index),
        ("scopes/*/store", break_file),
        ("images", break_layers),
        ("images", break_index),
        ("images", break_list),
    ],
)
async def test_damage_is_found_and_healed(
    make_server: MakeServer, buildah: Path, registry: LocalRegistry, base: str, part: str, damage: object
) -> None:
    server = make_server(buildah=buildah)
    files = [{"path": "Containerfile", "text": TEXT.format(base=base)}, {"path": "word", "text": "x"}]
    tag = f"{registry.host}/cache/{unique()}:1"
    async with server.connect() as session:
        before = await stamps(session, source={"files": files}, tags=[tag])
        for store in stores(server, part):
            damage(store)
        files[1]["text"] = "y"
        after = await stamps(session, source={"files": files}, tags=[tag])
        assert after[2] == "y" and "not what" not in after[0]
        assert after[0] != before[0] or part == "images", "the damaged layer was used"
        assert await stamps(session, source={"files": files}, tags=[tag]) == after


async def test_damaged_layers_of_a_ref_are_read_no_more(make_server: MakeServer, buildah: Path, url: str) -> None:
    server = make_server(buildah=buildah)
    ref = {"git": url, "ref": "main"}
    async with server.connect() as session:
        main = await stamps(session, source=ref)
        for store in stores(server, "scopes/*/store"):
            break_layers(store)
        patched = await stamps(session, source=ref | {"patch": PATCH})
        assert patched[0] != main[0] and patched[2] == "patched"
        assert await stamps(session, source=ref | {"patch": PATCH}) == patched


async def test_what_another_build_uses_is_not_discarded_under_it(
    make_server: MakeServer, buildah: Path, registry: LocalRegistry, base: str
) -> None:
    server = make_server(buildah=buildah, user=ORDINARY_USER, slots=2)
    marker, tag = sleep_marker(), unique()
    extend(registry, "test/base", "1", tag, 1000)
    other = {"files": [{"path": "Containerfile", "text": f"FROM {base[:-1]}{tag}\nRUN cat /layer-{tag} > /copy\n"}]}
    text = f"FROM {base}\nRUN sleep {marker} || true\n"
    async with server.connect() as session:
        source, tests = {"files": [{"path": "Containerfile", "text": text}]}, [{"command": "true"}]
        user = await submit(session, source=source, tests=tests)
        await wait_for(lambda: running("sleep", marker), "the first build")
        # Not its layers, but those of an image that is there beside it.
        await succeed(session, source=other, name="other")
        for layer in [path for store in stores(server, "images") for path in store.glob(f"overlay/*/diff/layer-{tag}")]:
            shutil.rmtree(layer.parent)
        other["files"].append({"path": "new", "text": "x"})
        failure = (await run(session, source=other, no_cache=True))["failure"]
        assert failure["retryable"] and "other builds use them" in failure["hint"], failure
        os.kill(running("sleep", marker)[0].pid, signal.SIGTERM)
        status = await wait_final(session, user)
        assert status["state"] == "succeeded", status
        await succeed(session, source=other, no_cache=True)


async def test_what_was_used_least_recently_goes_unless_it_is_used(make_server: MakeServer, base: str) -> None:
    server = make_server(user=ORDINARY_USER, slots=2, cache_mb=60)
    marker = sleep_marker()

    def build(name: str, then: str = "true") -> dict[str, object]:
        text = f"FROM {base}\nRUN head -c 16000000 /dev/urandom > /big && ({then})\n"
        return {"name": name, "source": {"files": [{"path": "Containerfile", "text": text}]}}

    def scopes() -> set[Path]:
        for stamp in (server.state / "cache").glob("*/swept"):
            os.utime(stamp, (0, 0))
        return set((server.state / "cache").glob("*/*/scopes/*"))

    async with server.connect() as session:
        running_build = await submit(session, **build("first", f"sleep {marker} || true"))
        await wait_for(lambda: running("sleep", marker), "the first build")
        first = scopes()
        await succeed(session, **build("second"))
        second = scopes() - first
        await succeed(session, **build("third"))
        third = scopes() - first - second
        assert len(first) == len(second) == len(third) == 1

        async def removed() -> bool:
            # A cache is looked at when a build has ended, and not at once again.
            await succeed(session, **build("fourth"))
            return len(scopes()) == 3

        await wait_for(removed, "the removal of a scope")
        assert first | third < scopes(), "not the one that was used least recently"
        assert (await status_of(session, running_build))["state"] == "running"
        os.kill(running("sleep", marker)[0].pid, signal.SIGTERM)
        await wait_final(session, running_build)
        await succeed(session, **build("second"))
