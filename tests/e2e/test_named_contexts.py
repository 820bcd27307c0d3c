"""Named build contexts: directories of the source beside the context, and images under a name."""

from __future__ import annotations

from pathlib import Path

import pytest
from git_http import GitHttp, commit, git
from helpers import ask, fail, file_source, log_text, refused, succeed, unique
from mcp import ClientSession

TEXTS = {
    "app/Containerfile": (
        "FROM start AS made\nCOPY word /word\nCOPY --from=shared /lib /lib-of-shared\n"
        "RUN --mount=type=bind,from=shared,target=/shared cp /shared/lib/part /mounted\n"
        "FROM start\nCOPY --from=made /word /mounted /lib-of-shared/part /\n"
    ),
    "app/word": "app",
    "libs/shared/lib/part": "shared",
    "libs/shared/other": "x",
}
CONTEXTS = ["shared=libs/shared"]
TESTS = [{"command": 'test "$(cat /word /part /mounted)" = appsharedshared'}]


def contexts(base: str) -> list[str]:
    return [*CONTEXTS, f"start=docker-image://{base}"]


def write(directory: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


@pytest.mark.parametrize("kind", ["path", "git", "files"])
async def test_a_directory_beside_the_context_and_an_image_have_names(
    session: ClientSession, base: str, tmp_path: Path, kind: str
) -> None:
    asked = {"build_contexts": contexts(base), "tests": TESTS}
    if kind == "git":
        write(tmp_path / "work", {})
        (tmp_path / "work").mkdir()
        git(tmp_path / "work", "init", "--quiet", "--initial-branch=main")
        commit(tmp_path / "work", "first", TEXTS)
        (tmp_path / "served").mkdir()
        git(tmp_path, "clone", "--quiet", "--bare", "work", "served/repo.git")
        with GitHttp(tmp_path / "served") as server:
            await succeed(session, source={"git": f"{server.url}/repo.git", "subdir": "app"}, **asked)
        return
    source = file_source(TEXTS) if kind == "files" else {"path": str(write(tmp_path, TEXTS))}
    status = await succeed(session, source=source | {"subdir": "app"}, **asked)
    assert status["source"]["subdir"] == "app"


async def test_another_file_of_it_is_another_step(session: ClientSession, base: str, tmp_path: Path) -> None:
    source = {"path": str(write(tmp_path, TEXTS)), "subdir": "app"}
    asked = {"source": source, "build_contexts": contexts(base), "name": unique("named")}
    await succeed(session, **asked, tests=TESTS)
    (tmp_path / "libs/shared/lib/part").write_text("changed")
    bad = await fail(session, "test_failed", "code", **asked, tests=TESTS)
    since = bad["since_success"]
    assert (since["step"]["line"], since["only_its_files"]) == (3, True), since


async def test_places_of_failures_are_files_of_the_source(session: ClientSession, base: str, tmp_path: Path) -> None:
    def source(containerfile: str, **texts: str) -> dict[str, str]:
        directory = tmp_path / unique()
        write(directory, TEXTS | {"app/Containerfile": containerfile} | texts)
        return {"path": str(directory), "subdir": "app"}

    # What a compiler says of a file that came from the directory.
    said = "FROM start\nWORKDIR /src\nCOPY --from=shared lib lib\nRUN echo \"lib/part:1:7: error: unknown type name 'x'\"; exit 1\n"
    bad = await fail(session, "compile_error", "code", source=source(said), build_contexts=contexts(base))
    failure = bad["failure"]
    assert (failure["file"], failure["line"]) == ("app/Containerfile", 4)
    assert failure["locations"][0]["file"] == "libs/shared/lib/part", failure

    # A file that the directory does not have.
    missing = "FROM start\n# a comment\nCOPY --from=shared \\\n  nothing /\n"
    bad = await fail(session, "copy_source_missing", "code", source=source(missing), build_contexts=contexts(base))
    assert (bad["failure"]["file"], bad["failure"]["line"]) == ("app/Containerfile", 3)

    # An image under a name that is not there.
    gone = [*CONTEXTS, f"start=docker-image://{base.rsplit(':', 1)[0]}:gone"]
    bad = await fail(session, "image_not_found", "code", source=source("# a comment\nFROM start\n"), build_contexts=gone)
    assert (bad["failure"]["file"], bad["failure"]["line"]) == ("app/Containerfile", 2)

    # A directory where an image must stand.
    bad = await fail(
        session, "containerfile_invalid", "code", source=source("FROM shared\n"), build_contexts=contexts(base)
    )
    assert "directory" in bad["failure"]["locations"][0]["message"]


async def test_what_cannot_be_a_context_is_refused_at_once(plain: ClientSession, tmp_path: Path, base: str) -> None:
    write(tmp_path, TEXTS)
    (tmp_path / "up").symlink_to("..")
    source = {"path": str(tmp_path), "subdir": "app"}
    for context in ("a=libs/none", "a=up", "a=libs/shared/other", "a=/etc", "a=../x", "a=https://example.com/x.tar"):
        text = await refused(plain, "build", {"source": source, "build_contexts": [context]}, "invalid_argument")
        assert "build_contexts" in text
    (tmp_path / "up").unlink()
    text = await refused(plain, "build", {"source": source, "contexts": {"a": "libs"}}, "invalid_argument")
    assert "did you mean build_contexts?" in text
    for validated in ({"shared": "libs/shared", "start": f"docker-image://{base}"}, contexts(base)):
        status = await ask(plain, "build", {"source": source, "build_contexts": validated, "validate_only": True})
        assert status["state"] == "valid" and status["plan"]["bases"] == [base]


async def test_only_what_has_a_name_goes_in_and_the_ignore_file_is_that_of_the_context(
    session: ClientSession, base: str, tmp_path: Path
) -> None:
    """As in a repository of many projects, in which each has an ignore file of its own."""
    texts = {
        "app/Containerfile": "FROM start\nCOPY . /app\nCOPY --from=shared . /shared\n",
        "app/.dockerignore": "*\n!src\n",
        "app/src/kept": "x",
        "app/node_modules/left-out": "x",
        ".dockerignore": "app/src\nlibs\n",
        "libs/shared/src/kept": "x",
        "libs/shared/node_modules/kept": "x",
    }
    write(tmp_path, TEXTS | texts)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/leads-out").symlink_to("/usr/bin/env")
    found = "cd / && find app shared libs -type f | sort | tr '\\n' ' '"
    expected = "app/src/kept shared/lib/part shared/node_modules/kept shared/other shared/src/kept "
    tests = [{"command": f'test "$({found})" = "{expected}"'}]
    source = {"path": str(tmp_path), "subdir": "./app/"}
    await succeed(session, source=source, build_contexts=["shared=./libs//shared", contexts(base)[1]], tests=tests)


@pytest.mark.parametrize("mount", ["", "type=bind,"])
@pytest.mark.parametrize("of", ["context", "name", "stage"])
async def test_what_a_step_mounts_decides_whether_its_layer_is_taken(
    session: ClientSession, base: str, tmp_path: Path, mount: str, of: str
) -> None:
    """Buildah itself takes the layer of any mount before 1.39, and since of one that does not say its type."""
    origin = {"context": "", "name": "from=shared,", "stage": "from=first,"}[of]
    source_path = {"context": "word", "name": "lib/part", "stage": "word"}[of]
    containerfile = (
        "FROM start AS first\nCOPY word /word\nFROM start\n"
        f"RUN --mount={mount}{origin}source={source_path},target=/mounted cp /mounted /copied\n"
    )
    write(tmp_path, TEXTS | {"app/Containerfile": containerfile})
    asked = {"source": {"path": str(tmp_path), "subdir": "app"}, "build_contexts": contexts(base), "name": unique()}

    async def build(word: str) -> str:
        (tmp_path / "app/word").write_text(word)
        (tmp_path / "libs/shared/lib/part").write_text(word)
        status = await succeed(session, **asked, tests=[{"command": f"grep -qx {word} /copied"}])
        return await log_text(session, status["build_id"], phase="build", **{"from": "start"})

    await build("one")
    await build("two")
    assert "Using cache" in await build("two"), "what is all the same is taken from the cache"
    await build("one")


@pytest.mark.parametrize("of", ["named context", "stage"])
async def test_what_a_cache_begins_with_decides_whether_its_layer_is_taken(
    session: ClientSession, base: str, tmp_path: Path, of: str
) -> None:
    origin = {"named context": "from=shared,source=lib", "stage": "from=first,source=/lib-of"}[of]
    containerfile = (
        "FROM start AS first\nCOPY word /lib-of/part\nFROM start\n"
        f"RUN --mount=type=cache,{origin},target=/mounted cp /mounted/part /copied\n"
    )
    write(tmp_path, TEXTS | {"app/Containerfile": containerfile})
    asked = {"source": {"path": str(tmp_path), "subdir": "app"}, "build_contexts": contexts(base), "name": unique()}
    for word in ("one", "two", "one"):
        (tmp_path / "app/word").write_text(word)
        (tmp_path / "libs/shared/lib/part").write_text(word)
        await succeed(session, **asked, tests=[{"command": f"grep -qx {word} /copied"}])


async def test_a_link_to_what_a_step_mounts_is_followed(session: ClientSession, base: str, tmp_path: Path) -> None:
    containerfile = f"FROM {base}\nRUN --mount=type=bind,source=current,target=/mounted cp /mounted/word /copied\n"
    write(tmp_path, {"Containerfile": containerfile, "v1/word": "one"})
    (tmp_path / "current").symlink_to("v1")
    for word in ("one", "two"):
        (tmp_path / "v1/word").write_text(word)
        source = {"path": str(tmp_path)}
        await succeed(session, source=source, tests=[{"command": f"grep -qx {word} /copied"}])


async def test_what_a_step_writes_to_the_context_is_gone_with_it(session: ClientSession, base: str, tmp_path: Path) -> None:
    containerfile = (
        f"FROM {base}\nRUN --mount=type=bind,source=word,target=/m,rw sh -c 'echo evil > /m'; true\n"
        "RUN --mount=type=bind,target=/m,rw sh -c 'echo evil > /m/word; echo evil > /m/more'; true\nCOPY . /all\n"
    )
    write(tmp_path, {"Containerfile": containerfile, "word": "good"})
    tests = [{"command": 'test "$(cat /all/word)" = good && ! test -e /all/more'}]
    await succeed(session, source={"path": str(tmp_path)}, tests=tests)
    # Nor does a later build of the same find it.
    await succeed(session, source={"path": str(tmp_path)}, tests=tests, labels=["a=b"])
