"""Calls of the four tools, and waiting for conditions."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from mcp import ClientSession
from mcp.types import CallToolResult

UNFINISHED = ("queued", "running")
STATES = (*UNFINISHED, "succeeded", "failed", "cancelled", "timed_out", "lost")
_numbers = itertools.count(random.randrange(10**6, 10**7))
_ID_ALPHABET = "23456789bcdfghjkmnpqrstvwx"


def unique(prefix: str = "t") -> str:
    """A name that no other test uses."""
    return f"{prefix}{next(_numbers)}"


CLOSING = re.compile(r"^nomad-build: (nothing is missing|(one line says|\d+ lines say) what is missing or wrong, and what mends it)\n\Z", re.M)
"""How `check` ends for people."""


def items(check: subprocess.CompletedProcess[str]) -> str:
    """What `check` printed of its items, and whatever else."""
    is_well = check.returncode == 0 and not check.stdout.startswith("{")
    assert is_well == check.stderr.endswith("nomad-build: nothing is missing\n"), check
    return check.stdout + CLOSING.sub("", check.stderr)


def sleep_marker() -> str:
    """Seconds to sleep for in a build: long, and recognisable among all processes."""
    return f"31{next(_numbers)}"


def files(**texts: str) -> dict[str, list[dict[str, str]]]:
    """A source of files; `Containerfile=` and the like."""
    return file_source(texts)


def file_source(texts: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """A source of files by their paths."""
    return {"files": [{"path": path, "text": text} for path, text in texts.items()]}


def some_build_id() -> str:
    """An id of the right form, with the right check symbol, that no build has."""
    values = [random.randrange(26) for _ in range(9)]
    weights = (1, 3, 5, 7, 9, 11, 15, 17, 19)
    values.append(sum(v * w for v, w in zip(values, weights, strict=True)) % 26)
    symbols = "".join(_ID_ALPHABET[v] for v in values)
    return f"{symbols[:5]}-{symbols[5:]}"


def text_of(result: CallToolResult) -> str:
    """What a model sees of a result."""
    return "\n".join(block.text for block in result.content if block.type == "text")


async def call(session: ClientSession, tool: str, args: dict[str, Any]) -> CallToolResult:
    """Calls a tool; the SDK checks a successful answer against the tool's output schema."""
    with anyio.fail_after(90):
        return await session.call_tool(tool, args)


async def ask(session: ClientSession, tool: str, args: dict[str, Any]) -> dict[str, Any]:
    """The structured answer of a call that must succeed, and that must say the same as text."""
    data, _ = await ask_both(session, tool, args)
    return data


async def ask_both(session: ClientSession, tool: str, args: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The structured answer and the text of a call that must succeed."""
    result = await call(session, tool, args)
    text = text_of(result)
    assert not result.isError, text
    assert result.structuredContent is not None
    assert text, "an answer without text"
    for build in result.structuredContent.get("builds", [result.structuredContent]):
        if build.get("state") in STATES:
            assert build["build_id"] in text
            assert build["state"].replace("_", " ") in text.lower().replace("_", " ")
    return result.structuredContent, text


async def refused(session: ClientSession, tool: str, args: dict[str, Any], *codes: str) -> str:
    """The text of a call that must be refused with one of these error codes."""
    result = await call(session, tool, args)
    text = text_of(result)
    assert result.isError, f"accepted: {text}"
    assert result.structuredContent is None
    match = re.match(r"error\[(\w+)\]", text)
    assert match, text
    assert match[1] in codes, text
    assert result.meta and match[1] in json.dumps(result.meta["nomad-build/error"])
    return text


async def submit(session: ClientSession, **args: Any) -> str:
    """Starts a build and returns its id."""
    status = await ask(session, "build", args)
    assert status["state"] in STATES
    return status["build_id"]


async def status_of(session: ClientSession, build_id: str) -> dict[str, Any]:
    """The build's status now."""
    builds = (await ask(session, "status", {"build_id": build_id, "wait": 0}))["builds"]
    assert [build["build_id"] for build in builds] == [build_id]
    return builds[0]


async def wait_final(session: ClientSession, build_id: str, seconds: float = 240) -> dict[str, Any]:
    """The build's status once it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await ask(session, "status", {"build_id": build_id, "wait": 20})
        status = answer["builds"][0]
        if status["state"] not in UNFINISHED:
            return status
        assert time.monotonic() < deadline, f"not ended after {seconds} s: {status}"


async def run(session: ClientSession, **args: Any) -> dict[str, Any]:
    """Starts a build and returns its final status."""
    return await wait_final(session, await submit(session, **args))


async def succeed(session: ClientSession, **args: Any) -> dict[str, Any]:
    """Runs a build that must succeed."""
    status = await run(session, **args)
    assert status["state"] == "succeeded", status
    assert "failure" not in status
    return status


async def fail(session: ClientSession, kind: str, fault: str, **args: Any) -> dict[str, Any]:
    """Runs a build that must fail for this reason; returns its status."""
    status = await run(session, **args)
    assert status["state"] == "failed", status
    failure = status["failure"]
    assert (failure["kind"], failure["fault"]) == (kind, fault), failure
    assert failure["retryable"] == (fault == "transient")
    _, text = await ask_both(session, "status", {"build_id": status["build_id"], "wait": 0})
    assert f"{fault}/{kind}" in text
    if "line" in failure:
        assert f"{failure['file']}:{failure['line']}" in text
    return status


async def log_text(session: ClientSession, build_id: str, **args: Any) -> str:
    """The text of `logs`, from its start unless told otherwise."""
    wanted = {"build_id": build_id, "from": "start", "lines": 2000, "max_bytes": 30720} | args
    return (await ask(session, "logs", wanted))["text"]


async def wait_for(probe: Callable[[], Any | Awaitable[Any]], what: str | Callable[[], str], seconds: float = 60) -> Any:
    """Waits until the probe gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        found = probe()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what if isinstance(what, str) else what()}"
        await rest(began, 0.05)


async def rest(began: float, shortest: float) -> None:
    """Between two looks, of which the last one `began` then: what is waited for needs the processors more."""
    await anyio.sleep(max(shortest, min(4 * (time.monotonic() - began), 0.5)))


async def wait_state(session: ClientSession, build_id: str, state: str, phase: str | None = None) -> dict[str, Any]:
    """Waits until the build is in this state and phase."""

    async def reached() -> dict[str, Any] | None:
        status = await status_of(session, build_id)
        assert status["state"] in (*UNFINISHED, state), status
        return status if status["state"] == state and phase in (None, status.get("phase")) else None

    return await wait_for(reached, f"{state} {phase or ''}", 120)
