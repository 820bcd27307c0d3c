"""Bad arguments: each is refused in words that teach, and the server goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeServer
from helpers import ask, call, files, log_text, refused, some_build_id, succeed, text_of, unique, wait_final
from mcp import ClientSession, McpError

INVALID = ("invalid_argument",)
SOURCE = {"files": [{"path": "Containerfile", "text": "FROM registry.invalid/x:1\n"}]}
GIT = "https://git.invalid/x.git"


@dataclass
class Bad:
    """Arguments, and what the refusal must say."""

    name: str
    tool: str
    args: dict[str, Any]
    says: tuple[str, ...] = ()
    codes: tuple[str, ...] = INVALID


def bad_build(case: str, /, *says: str, codes: tuple[str, ...] = INVALID, **args: Any) -> Bad:
    return Bad(case, "build", {"source": SOURCE} | args, says, codes)


def bad_source(name: str, *says: str, codes: tuple[str, ...] = INVALID, **source: Any) -> Bad:
    return Bad(name, "build", {"source": source}, says, codes)


CASES = [
    # Shape
    bad_build("ill-typed-tests", "tests", tests=5),
    bad_build("ill-typed-wait", "wait", wait="soon"),
    bad_build("ill-typed-flag", "no_cache", no_cache="perhaps"),
    bad_source("ill-typed-files", "files", files="no json"),
    bad_build("unknown-argument", "tag", "did you mean tags", tag="x"),
    bad_build("unknown-in-test", "did you mean command", tests=[{"comand": "true"}]),
    Bad("unknown-in-logs", "logs", {"build_id": "x", "gerp": "x"}, ("did you mean grep",)),
    Bad("missing-id", "logs", {}, ("build_id",)),
    Bad("unknown-state", "status", {"state": ["finished"]}, ("state",)),
    # Sources
    Bad("no-source", "build", {}, ("source",)),
    bad_source("empty-source", "source"),
    bad_source("two-sources", "git", "path", git=GIT, path="/tmp"),
    bad_source("ref-without-git", "ref", path="/tmp", ref="main"),
    bad_source("patch-without-git", "patch", path="/tmp", patch="x"),
    bad_source("relative-path", "path", path="some/where", codes=("invalid_argument", "path_not_reachable")),
    bad_source("no-such-path", "path", path="/no/such/directory", codes=("path_not_reachable",)),
    bad_source("path-is-a-file", "path", path="/etc/passwd", codes=("path_not_reachable", "invalid_argument")),
    bad_source("file-outside", "files[0].path", files=[{"path": "../x", "text": ""}]),
    bad_source("file-absolute", "files[0].path", files=[{"path": "/etc/x", "text": ""}]),
    bad_source("subdir-outside", "subdir", git=GIT, subdir="../x"),
    bad_source("ref-like-an-option", "ref", git=GIT, ref="--upload-pack=touch /tmp/x"),
    bad_source("git-ext", "git", git="ext::sh -c touch% /tmp/x", codes=("invalid_argument", "not_allowed")),
    bad_source("git-file", "git", git="file:///etc", codes=("invalid_argument", "not_allowed")),
    bad_source("git-local", "git", git="/etc", codes=("invalid_argument", "not_allowed")),
    bad_source("git-option", "git", git="--upload-pack=x", codes=("invalid_argument", "not_allowed")),
    bad_build("containerfile-is-text", "containerfile", containerfile="FROM x\nRUN y\n"),
    bad_build("containerfile-outside", "containerfile", containerfile="../Containerfile"),
    # What to make of it
    bad_build("tag-with-space", "tags[0]", tags=["registry.invalid/x:a b"]),
    bad_build("tag-upper-case", "tags[0]", tags=["registry.invalid/Team/x:1"]),
    bad_build("tag-without-registry", "tags[0]", tags=["hello:1"]),
    bad_build("tag-without-tag", "tags[0]", tags=["registry.invalid/x"]),
    bad_build("build-arg-without-value", "build_args[0]", build_args=["WORD"]),
    bad_build("name-with-space", "name", name="my build"),
    bad_build(
        "no-such-profile", "profile", profile="no-such-profile", codes=("invalid_argument", "not_allowed", "not_found")
    ),
    bad_build(
        "no-such-secret", "secrets", secrets=["no-such-secret"], codes=("invalid_argument", "not_allowed", "not_found")
    ),
    bad_build("command-and-argv", "argv", tests=[{"command": "true", "argv": ["true"]}]),
    bad_build("test-of-nothing", "tests[0]", tests=[{"name": "x"}]),
    bad_build("tests-of-one-name", "name", tests=[{"name": "x", "command": "true"}] * 2),
    # Numbers
    bad_build("negative-timeout", "timeout", timeout=-1),
    bad_build("negative-wait", "wait", wait=-5),
    bad_build("negative-in-test", "tests[0].timeout", tests=[{"command": "true", "timeout": -1}]),
    Bad("negative-limit", "status", {"limit": -1}, ("limit",)),
    bad_build("huge-number", "timeout", timeout=10**30),
    # Reading
    Bad("unknown-build", "status", {"build_id": some_build_id()}, codes=("not_found",)),
    Bad("unknown-build-logs", "logs", {"build_id": some_build_id()}, codes=("not_found",)),
    Bad("unknown-build-kill", "kill", {"build_id": some_build_id()}, codes=("not_found",)),
    Bad("unknown-like", "build", {"like": some_build_id()}, codes=("not_found",)),
    Bad("id-is-a-path", "logs", {"build_id": "../../etc/passwd"}, codes=("invalid_argument", "not_found")),
    Bad("malformed-list-cursor", "status", {"cursor": "no cursor"}, ("cursor",)),
]


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
async def test_bad_arguments_are_refused(plain: ClientSession, bad: Bad) -> None:
    text = await refused(plain, bad.tool, bad.args, *bad.codes)
    for words in bad.says:
        assert words in text
    assert "builds" in await ask(plain, "status", {"limit": 1}), "the server does not go on"


async def test_all_faults_are_told_at_once_and_no_values(plain: ClientSession) -> None:
    args = {
        "source": SOURCE,
        "tags": ["UPPER"],
        "timeout": 0,
        "build_args": ["TOKEN=hunter2-build-arg", "=hunter2-no-key"],
        "tests": [{"env": ["KEY=hunter2-env"], "comand": "x"}],
    }
    text = await refused(plain, "build", args, *INVALID)
    assert all(word in text for word in ("tags[0]", "timeout", "comand"))
    assert "hunter2" not in text


async def test_a_url_with_credentials_is_refused_and_not_repeated(plain: ClientSession) -> None:
    source = {"git": "https://user:hunter2@git.invalid/x.git"}
    text = await refused(plain, "build", {"source": source}, "invalid_argument", "not_allowed")
    assert "hunter2" not in text


async def test_http_is_refused_unless_allowed(make_server: MakeServer) -> None:
    async with make_server(allow_http=False).connect() as session:
        source = {"git": "http://127.0.0.1:1/x.git"}
        await refused(session, "build", {"source": source}, "invalid_argument", "not_allowed")


@pytest.mark.parametrize("cursor", ["abc", "-1", "1.5", "99999999999999999999999"])
async def test_a_malformed_log_cursor_is_refused(plain: ClientSession, base: str, cursor: str) -> None:
    build_id = (await succeed(plain, source=files(Containerfile=f"FROM {base}\n")))["build_id"]
    text = await refused(plain, "logs", {"build_id": build_id, "cursor": cursor}, *INVALID)
    assert "cursor" in text


@pytest.mark.parametrize("grep", ["(", "[z-a]", "(?=x)", "((a{1000}){1000}){1000}"])
async def test_a_malformed_expression_is_refused(plain: ClientSession, base: str, grep: str) -> None:
    build_id = (await succeed(plain, source=files(Containerfile=f"FROM {base}\n")))["build_id"]
    assert "grep" in await refused(plain, "logs", {"build_id": build_id, "grep": grep}, *INVALID)


async def test_ten_megabytes_are_refused(plain: ClientSession) -> None:
    source = files(Containerfile="#" * 10_000_000)
    text = await refused(plain, "build", {"source": source}, "invalid_argument", "limit_reached")
    assert len(text) < 5000
    assert "builds" in await ask(plain, "status", {})


@pytest.mark.parametrize("link", ["Containerfile", ".containerignore", "leak", "directory"])
async def test_a_link_out_of_the_context_shows_nothing(
    plain: ClientSession, base: str, tmp_path: Path, link: str
) -> None:
    outside, context = tmp_path / "outside", tmp_path / "context"
    outside.mkdir()
    context.mkdir()
    word = unique("host-secret-")
    (outside / "secret").write_text(word)
    (context / "Containerfile").write_text(f"FROM {base}\nCOPY {link} /leak\nRUN cat /leak /leak/secret\n")
    (context / link).unlink(missing_ok=True)
    (context / link).symlink_to(outside if link == "directory" else outside / "secret")
    result = await call(plain, "build", {"source": {"path": str(context)}})
    if result.isError:
        assert text_of(result).startswith("error[")
        assert word not in text_of(result)
        return
    assert result.structuredContent
    build_id = result.structuredContent["build_id"]
    status = await wait_final(plain, build_id)
    assert status["state"] == "failed", status
    assert status["failure"]["fault"] in ("code", "request")
    assert word not in str(status)
    assert word not in await log_text(plain, build_id)


async def test_a_subdir_that_is_a_link_out_is_refused(plain: ClientSession, tmp_path: Path) -> None:
    (tmp_path / "sub").symlink_to("/etc")
    source = {"path": str(tmp_path), "subdir": "sub"}
    await refused(plain, "build", {"source": source}, "invalid_argument", "not_allowed", "path_not_reachable")


async def test_a_tool_that_does_not_exist(plain: ClientSession) -> None:
    try:
        result = await plain.call_tool("deploy", {})
    except McpError:
        pass
    else:
        assert result.isError
    assert "builds" in await ask(plain, "status", {})
