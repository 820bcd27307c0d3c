"""What has changed since a build of the same source last succeeded."""

from __future__ import annotations

from pathlib import Path

from conftest import MakeServer
from git_http import GitHttp, commit, git
from helpers import ask_both, fail, file_source, run, succeed, unique
from local_registry import LocalRegistry
from mcp import ClientSession

CONTAINERFILE = "FROM {base}\nARG WORD=fine\nCOPY check /check\nRUN sh /check $WORD\n"


async def test_commits_files_and_arguments_that_differ_are_named(
    session: ClientSession, base: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    texts = {"app/Containerfile": CONTAINERFILE.format(base=base), "app/check": "test $1 = fine\n"}
    first = commit(work, "first", texts | {"other": unique()})
    served = tmp_path / "served"
    served.mkdir()
    git(tmp_path, "clone", "--quiet", "--bare", str(work), str(served / "repo.git"))
    git(work, "remote", "add", "origin", str(served / "repo.git"))
    with GitHttp(served) as server:
        source = {"git": f"{server.url}/repo.git", "subdir": "app"}
        good = await succeed(session, source=source, no_cache=True)
        assert "since_success" not in good

        # Another argument, of the same commit.
        bad = await fail(session, "command_failed", "code", source=source, build_args=["WORD=wrong"])
        since = bad["since_success"]
        assert since["build_id"] == good["build_id"] and since["finished"] == good["times"]["finished"]
        assert since["build_args"] == ["WORD"]
        assert "commit" not in since and "step" not in since and "bases" not in since
        assert "every step and the files that it takes are the same" in since["summary"]

        # Another commit, in which a file is another that a step takes.
        second = commit(work, "second", {"app/check": "exit 3\n"})
        git(work, "push", "--quiet", "origin", "main")
        bad = await fail(session, "command_failed", "code", source=source)
        since = bad["since_success"]
        assert since["commit"] == {"before": first, "now": second}
        assert (since["step"]["index"], since["step"]["line"], since["only_its_files"]) == (3, 3, True)
        _, text = await ask_both(session, "status", {"build_id": bad["build_id"]})
        assert since["summary"] in text and "first step that differs: COPY check /check" in text

        # Another instruction; what no step takes does not count.
        commit(work, "third", texts | {"app/Containerfile": texts["app/Containerfile"] + "RUN exit 4\n", "app/unused": "x"})
        git(work, "push", "--quiet", "origin", "main")
        bad = await fail(session, "command_failed", "code", source=source)
        since = bad["since_success"]
        assert since["step"]["instruction"] == "RUN exit 4" and "only_its_files" not in since

        # A commit whose Containerfile cannot be read: nothing of it can be compared but the commit.
        broken = commit(work, "broken", {"app/Containerfile": "FORM x\n"})
        git(work, "push", "--quiet", "origin", "main")
        bad = await fail(session, "containerfile_invalid", "code", source=source)
        since = bad["since_success"]
        assert since["commit"] == {"before": first, "now": broken} and "step" not in since, since


async def test_another_base_image_is_named(
    make_server: MakeServer, buildah: Path, registry: LocalRegistry, base: str
) -> None:
    name = f"{registry.host}/{unique('base')}:1"
    server = make_server(buildah=buildah)
    async with server.connect() as session:
        source = file_source({"Containerfile": f"FROM {name}\nRUN test ! -e /broken\n"})
        await succeed(session, source=file_source({"Containerfile": f"FROM {base}\n"}), tags=[name])
        named = {"source": source, "name": "api"}
        good = await succeed(session, **named)
        changed = file_source({"Containerfile": f"FROM {base}\nRUN touch /broken\n"})
        pushed = await succeed(session, source=changed, tags=[name])
        bad = await fail(session, "command_failed", "code", **named)
        (other,) = bad["since_success"]["bases"]
        assert other["image"] == name and other["now"] == pushed["image"]["digest"] != other["before"]
        assert bad["since_success"]["build_id"] == good["build_id"]

        # Without a name there is nothing to know a source of files by.
        alone = await fail(session, "command_failed", "code", source=source)
        assert "since_success" not in alone


async def test_what_is_the_same_is_said_to_be(make_server: MakeServer, base: str) -> None:
    server = make_server()
    async with server.connect() as session:
        args = {"source": file_source({"Containerfile": f"FROM {base}\nRUN echo {unique()}\n"}), "name": "same"}
        tests = [{"name": "t", "command": "sleep 8"}]
        await succeed(session, **args, tests=tests)
        other = await fail(session, "test_failed", "code", **args, tests=[{"name": "t", "command": "exit 1"}])
        assert other["since_success"]["tests"] == ["t"]
        assert "1 other test" in other["since_success"]["summary"]
        ended = await run(session, **args, tests=tests, timeout=6)
        assert ended["state"] == "timed_out"
        assert "tests" not in ended["since_success"]
        assert "the same source, base images, build arguments, steps and tests" in ended["since_success"]["summary"]
