"""From sources to a published image."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ask_both, fail, file_source, files, log_text, run, submit, succeed, unique, wait_final
from local_registry import LocalRegistry
from mcp import ClientSession


async def test_files_are_built_tested_and_published(session: ClientSession, registry: LocalRegistry, base: str) -> None:
    repository = f"e2e/{unique()}"
    tags = [
        f"{registry.host}/{repository}:1",
        f"{registry.host}/{repository}:latest",
        f"{registry.host}/{repository}-too:1",
    ]
    status = await succeed(
        session,
        source=files(
            Containerfile=f"FROM {base}\nARG WORD\nCOPY hello /hello\nRUN echo $WORD >> /hello\n", hello="hi\n"
        ),
        build_args=["WORD=there"],
        labels=["org.example.kind=e2e"],
        tests=[
            {"name": "both", "command": 'test "$(cat /hello)" = "$(printf \'hi\\nthere\')"'},
            {"command": "true"},
        ],
        tags=tags,
        name="happy",
    )
    image = status["image"]
    assert image["published"] is True
    assert status["name"] == "happy"
    assert [(tag["tag"], tag["state"]) for tag in image["tags"]] == [(tag, "confirmed") for tag in tags]
    assert [(test["name"], test["status"], test["exit_code"]) for test in status["tests"]] == [
        ("both", "passed", 0),
        ("test-2", "passed", 0),
    ]
    assert set(status["times"]["phase_seconds"]) == {"source", "build", "test", "publish"}

    for name, tag in ((repository, "1"), (repository, "latest"), (f"{repository}-too", "1")):
        assert registry.digest(name, tag) == image["digest"]
    assert {tag["digest"] for tag in image["tags"]} == {image["digest"]}
    config_digest, config = registry.config(repository, "1")
    assert config_digest == image["id"], "what was published is not what was tested"
    assert config["config"]["Labels"]["org.example.kind"] == "e2e"

    _, text = await ask_both(session, "status", {"build_id": status["build_id"]})
    assert image["digest"] in text
    assert all(tag in text for tag in tags)
    assert "2/2" in text


async def test_a_directory_is_built_as_it_was_when_asked(
    session: ClientSession, registry: LocalRegistry, base: str, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/Dockerfile").write_text(f"FROM {base}\nCOPY . /all\n")
    (tmp_path / "sub/.dockerignore").write_text("*.log\n")
    (tmp_path / "sub/x.log").write_text("left out")
    (tmp_path / "sub/word").write_text("before")
    build_id = await submit(
        session,
        source={"path": str(tmp_path), "subdir": "sub", **file_source({"sub/added": "yes"})},
        tests=[{"command": "cat /all/word /all/added; test ! -e /all/x.log"}],
        tags=[f"{registry.host}/e2e/{unique()}:1"],
    )
    (tmp_path / "sub/word").write_text("after")
    status = await wait_final(session, build_id)
    assert status["state"] == "succeeded", status
    assert status["source"]["path"] == str(tmp_path)
    assert status["source"]["subdir"] == "sub"
    assert status["source"]["digest"].startswith("sha256:")
    assert "beforeyes" in await log_text(session, status["build_id"], phase="test")


async def test_without_tags_nothing_is_pushed(session: ClientSession, base: str) -> None:
    status = await succeed(
        session, source=files(Containerfile=f"FROM {base}\nRUN echo {unique()}\n"), tests=[{"command": "true"}]
    )
    assert status["image"]["id"].startswith("sha256:")
    assert status["image"]["published"] is False
    assert "digest" not in status["image"]
    assert status["phase"] == "test"
    _, text = await ask_both(session, "status", {"build_id": status["build_id"]})
    assert "NOT published" in text


async def test_only_the_target_is_built(session: ClientSession, base: str) -> None:
    containerfile = f"FROM {base} AS first\nRUN echo one > /name\nFROM first AS second\nRUN exit 9\n"
    await succeed(
        session, source=files(Containerfile=containerfile), target="first", tests=[{"command": "grep one /name"}]
    )


async def test_no_cache_runs_every_step_anew(plain: ClientSession, base: str) -> None:
    source = files(Containerfile=f"FROM {base}\nRUN cat /proc/sys/kernel/random/uuid > /id\n")
    first = await succeed(plain, source=source, no_cache=True)
    second = await succeed(plain, source=source, no_cache=True)
    assert first["image"]["id"] != second["image"]["id"]


async def test_a_failing_test_stops_the_push_and_all_tests_run(
    session: ClientSession, registry: LocalRegistry, base: str
) -> None:
    repository = f"e2e/{unique()}"
    status = await fail(
        session,
        "test_failed",
        "code",
        source=files(Containerfile=f"FROM {base}\n"),
        tests=[
            {"name": "good", "command": "true"},
            {"name": "bad", "command": "echo reason-of-bad; exit 3"},
            {"name": "later", "command": "exit 4"},
            {"name": "last", "command": "true"},
        ],
        tags=[f"{registry.host}/{repository}:1"],
    )
    assert [test["status"] for test in status["tests"]] == ["passed", "failed", "failed", "passed"]
    assert [test["exit_code"] for test in status["tests"]] == [0, 3, 4, 0]
    failure = status["failure"]
    assert (failure["phase"], failure["test"], failure["exit_code"]) == ("test", "bad", 3)
    assert "reason-of-bad" in failure["excerpt"]
    assert "reason-of-bad" in status["tests"][1]["excerpt"]
    assert registry.digest(repository, "1") is None
    assert not status["image"]["published"]
    bad = status["tests"][1]
    text = await log_text(session, status["build_id"], test="bad")
    assert "reason-of-bad" in text
    assert bad["first_line"] <= bad["last_line"]


async def test_fail_fast_leaves_the_rest_out(plain: ClientSession, base: str) -> None:
    status = await fail(
        plain,
        "test_failed",
        "code",
        source=files(Containerfile=f"FROM {base}\n"),
        tests=[{"command": "exit 1"}, {"command": "true"}],
        fail_fast=True,
    )
    assert [test["status"] for test in status["tests"]] == ["failed", "not_run"]


async def test_a_test_that_does_not_end_is_ended(session: ClientSession, base: str) -> None:
    status = await fail(
        session,
        "test_timed_out",
        "code",
        source=files(Containerfile=f"FROM {base}\n"),
        tests=[{"name": "slow", "command": "echo begun; sleep 300", "timeout": 2}, {"name": "next", "command": "true"}],
    )
    assert [test["status"] for test in status["tests"]] == ["timed_out", "passed"]
    assert 2 <= status["tests"][0]["seconds"] < 30
    assert status["failure"]["test"] == "slow"


async def test_a_test_that_kills_itself_fails(session: ClientSession, base: str) -> None:
    status = await fail(
        session,
        "test_failed",
        "unknown",
        source=files(Containerfile=f"FROM {base}\n"),
        tests=[{"command": "kill -9 $$"}],
    )
    assert status["tests"][0]["status"] == "failed"
    assert status["tests"][0]["exit_code"] == 137


async def test_tests_keep_the_image_settings_but_not_its_entrypoint(session: ClientSession, base: str) -> None:
    containerfile = (
        f"FROM {base} AS builder\nRUN echo only-here > /builder\n"
        f"FROM {base}\nENV WORD=image OTHER=image\nRUN mkdir /w && chown nobody /w\nWORKDIR /w\nUSER nobody\n"
        'ENTRYPOINT ["/bin/false"]\n'
    )
    await succeed(
        session,
        source=files(Containerfile=containerfile),
        tests=[
            {
                "name": "settings",
                "command": 'test "$PWD $WORD $OTHER $(id -u)" = "/w image test 65534"',
                "env": ["OTHER=test"],
            },
            {"name": "argv", "argv": ["/bin/echo", "two  words", "$WORD", "; exit 1"]},
            {"name": "stage", "command": "grep only-here /builder", "stage": "builder"},
            {"name": "writes", "command": "touch /w/made"},
            {"name": "fresh", "command": "test ! -e /w/made"},
            {"name": "final", "command": "test ! -e /builder"},
        ],
    )


async def test_argv_is_not_a_shell(plain: ClientSession, base: str) -> None:
    status = await succeed(
        plain,
        source=files(Containerfile=f"FROM {base}\n"),
        tests=[{"name": "argv", "argv": ["/bin/echo", "two  words", "$HOME;"]}],
    )
    assert "two  words $HOME;" in await log_text(plain, status["build_id"], test="argv")


@pytest.mark.parametrize(("timeout", "phase"), [(3, "build"), (10, "test")])
async def test_the_whole_build_times_out(plain: ClientSession, base: str, timeout: int, phase: str) -> None:
    command = "RUN sleep 300\n" if phase == "build" else ""
    status = await run(
        plain,
        source=files(Containerfile=f"FROM {base}\n{command}"),
        tests=[{"command": "sleep 300"}],
        timeout=timeout,
    )
    assert status["state"] == "timed_out", status
    assert status["failure"]["kind"] == "timed_out"
    assert status["failure"]["phase"] == phase
