"""Keys, names, `like`, `validate_only`, and what the decoder forgives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import MakeServer
from helpers import (
    ask,
    ask_both,
    files,
    log_text,
    refused,
    sleep_marker,
    submit,
    succeed,
    unique,
    wait_final,
    wait_state,
)
from local_registry import LocalRegistry
from mcp import ClientSession


async def test_a_key_repeats_and_does_not_change(plain: ClientSession, base: str) -> None:
    key = unique("key")
    args = {"source": files(Containerfile=f"FROM {base}\nRUN echo {key}\n"), "key": key}
    first = await ask(plain, "build", args)
    assert not first.get("reused")
    again, text = await ask_both(plain, "build", args)
    assert again["build_id"] == first["build_id"]
    assert again["reused"] is True
    await wait_final(plain, first["build_id"])
    assert (await ask(plain, "build", args))["build_id"] == first["build_id"], "the end of the build ends its key"
    await refused(plain, "build", args | {"no_cache": True}, "key_reused")
    await refused(plain, "build", args | {"source": files(Containerfile=f"FROM {base}\n")}, "key_reused")


async def test_a_key_knows_the_content_of_a_directory(plain: ClientSession, base: str, tmp_path: Path) -> None:
    key = unique("key")
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nCOPY . /x\n")
    args = {"source": {"path": str(tmp_path)}, "key": key}
    first = await ask(plain, "build", args)
    (tmp_path / "new").write_text("changed")
    await refused(plain, "build", args, "key_reused")
    (tmp_path / "new").unlink()
    assert (await ask(plain, "build", args))["build_id"] == first["build_id"]


async def test_the_same_request_while_it_runs_is_the_same_build(plain: ClientSession, base: str) -> None:
    args = {"source": files(Containerfile=f"FROM {base}\nRUN sleep {sleep_marker()}\n")}
    first = await ask(plain, "build", args)
    again = await ask(plain, "build", args)
    assert again["build_id"] == first["build_id"]
    assert again["reused"] is True
    await ask(plain, "kill", {"build_id": first["build_id"]})
    other = await ask(plain, "build", args)
    assert other["build_id"] != first["build_id"], "a finished build is taken for a new one"


async def test_cancel_previous_ends_only_those_of_the_name(plain: ClientSession, base: str) -> None:
    def sleeper() -> dict[str, Any]:
        return files(Containerfile=f"FROM {base}\nRUN sleep {sleep_marker()}\n")

    name = unique("api")
    old = await submit(plain, source=sleeper(), name=name)
    other = await submit(plain, source=sleeper(), name=unique("other"))
    await wait_state(plain, old, "running")
    new = await submit(plain, source=files(Containerfile=f"FROM {base}\n"), name=name, cancel_previous=True)
    ended = await wait_final(plain, old)
    assert ended["state"] == "cancelled"
    assert ended["cancel"]["by"]
    assert (await wait_final(plain, new))["state"] == "succeeded"
    assert (await ask(plain, "status", {"build_id": other, "wait": 0}))["builds"][0]["state"] in ("queued", "running")
    await refused(plain, "build", {"source": sleeper(), "cancel_previous": True}, "invalid_argument")


async def test_like_takes_the_arguments_of_another_build(
    plain: ClientSession, registry: LocalRegistry, base: str
) -> None:
    repository = f"e2e/{unique()}"
    first = await succeed(
        plain,
        source=files(Containerfile=f"FROM {base}\nARG WORD\nRUN echo the-word-is-$WORD\n"),
        build_args=["WORD=first"],
        tests=[{"name": "kept", "command": "true"}],
    )
    second = await succeed(
        plain, like=first["build_id"], build_args=["WORD=second"], tags=[f"{registry.host}/{repository}:1"]
    )
    assert second["build_id"] != first["build_id"]
    assert [test["name"] for test in second["tests"]] == ["kept"]
    assert "the-word-is-second" in await log_text(plain, second["build_id"])
    assert registry.digest(repository, "1") == second["image"]["digest"]


async def test_validate_only_builds_nothing(make_server: MakeServer, registry: LocalRegistry, base: str) -> None:
    repository = f"e2e/{unique()}"
    tag = f"{registry.host}/{repository}:1"
    args = {
        "source": files(Containerfile=f"FROM {base} AS one\nRUN true\n\nFROM one AS two\nRUN true\nRUN true\n"),
        "tests": [{"name": "unit", "command": "true", "outputs": ["/tmp/x"]}],
        "tags": [tag],
        "outputs": ["/app", "image"],
        "validate_only": True,
    }
    async with make_server().connect() as session:
        answer, text = await ask_both(session, "build", args)
        assert answer["state"] == "valid"
        assert [(s["name"], s["base"], s["line"]) for s in answer["plan"]["stages"]] == [
            ("one", base, 1),
            ("two", "one", 4),
        ]
        assert answer["plan"]["bases"] == [base]
        assert answer["plan"]["tests"] == ["unit"]
        assert answer["plan"]["tags"] == [tag]
        assert answer["plan"]["outputs"] == ["/app", "image", "unit:/tmp/x"]
        assert "whether the image and the tests have what is to be handed over" in answer["plan"]["not_checked"]
        assert "output: unit:/tmp/x" in text
        assert "default" in answer["offers"]["profiles"]
        assert tag in text
        assert (await ask(session, "status", {}))["builds"] == []
        bad = args | {"source": files(Containerfile="FROM x\nRUNN y\n")}
        await refused(session, "build", bad, "invalid_argument")
    assert registry.digest(repository, "1") is None


async def test_the_decoder_forgives_what_is_clear(plain: ClientSession, base: str) -> None:
    status = await succeed(
        plain,
        source=json.dumps({"files": {"Containerfile": f"FROM {base}\nARG A\nRUN echo a-is-$A\n"}}),
        build_args={"A": "1"},
        tests=[{"name": "argv", "command": ["/bin/echo", "x"]}],
        timeout="300",
        target="",
        labels=None,
    )
    assert status["timeout_seconds"] == 300
    assert "a-is-1" in await log_text(plain, status["build_id"])


async def test_a_wait_above_the_maximum_is_cut_and_said(plain: ClientSession, base: str) -> None:
    status = await succeed(plain, source=files(Containerfile=f"FROM {base}\nRUN echo {unique()}\n"))
    answer, text = await ask_both(plain, "status", {"build_id": status["build_id"], "wait": 500})
    assert any("50" in note for note in answer["notes"])
    assert "500" in text
