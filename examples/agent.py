#!/usr/bin/env python3
"""An agent without a model: it builds a directory over MCP, reads why it failed, mends the source, and builds again.

    pip install 'mcp>=2'
    examples/agent.py DIRECTORY [BUILD_ARG=VALUE ...] [--test COMMAND] [--stage STAGE] [--tag TAG]

Starts `nomad-build serve` over stdio (NOMAD_BUILD_BIN: another program). What a model would do is in `mend`: it needs nothing but the
typed failure, no log.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import os
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

TRIES = 3


async def main() -> int:
    options = arguments()
    build = {
        "source": {"path": str(options.directory.resolve())},
        "build_args": options.build_args,
        "tests": [
            {"name": "check", "command": options.test} | ({"stage": options.stage} if options.stage else {})
        ] if options.test else [],
        "tags": [options.tag] if options.tag else [],
        "wait": 45,
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        read, write = await stack.enter_async_context(stdio_client(server()))
        session = await stack.enter_async_context(ClientSession(read, write))
        await session.initialize()
        for attempt in range(1, TRIES + 1):
            status = await finished(session, build)
            print(f"build {attempt}: {status['summary']}")
            if status["state"] == "succeeded":
                return 0
            failure = status.get("failure", {})
            mended = mend(options.directory, failure)
            if not mended:
                # What a model would read next: the rest of the failure.
                hint = failure.get("hint", "")
                print(f"nothing that this agent knows how to mend: it follows suggestions of compilers and misspelt files. {hint}")
                break
            print(f"mended: {mended}")
    return 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("build_args", nargs="*", metavar="BUILD_ARG=VALUE")
    parser.add_argument("--test")
    parser.add_argument("--stage")
    parser.add_argument("--tag")
    return parser.parse_args()


def server() -> StdioServerParameters:
    """The server of this machine."""
    return StdioServerParameters(command=os.environ.get("NOMAD_BUILD_BIN", "nomad-build"), args=["serve"], env=dict(os.environ))


async def finished(session: ClientSession, build: dict[str, Any]) -> dict[str, Any]:
    """Starts a build and waits for its end."""
    status = await call(session, "build", build)
    while status["state"] in ("queued", "running"):
        answer = await call(session, "status", {"build_id": status["build_id"], "wait": 45})
        status = answer["builds"][0]
    return status


async def call(session: ClientSession, tool: str, args: dict[str, Any]) -> dict[str, Any]:
    """What a tool answers; what it refuses says itself how to mend the call."""
    result = await session.call_tool(tool, args)
    failed = getattr(result, "is_error", None) or getattr(result, "isError", None)
    data = getattr(result, "structured_content", None) or getattr(result, "structuredContent", None)
    if failed or data is None:
        raise SystemExit("\n".join(getattr(block, "text", "") for block in result.content))
    return data


def mend(directory: Path, failure: dict[str, Any]) -> str | None:
    """Changes the source where the failure says how; returns what was changed."""
    places = failure.get("locations") or [failure]
    for place in places:
        file, line = directory / place.get("file", ""), place.get("line")
        if file.is_file() and line and (change := correction(directory, failure, place)):
            wrong, right = change
            lines = file.read_text().splitlines(keepends=True)
            lines[line - 1] = re.sub(rf"\b{re.escape(wrong)}(?![\w.])", right, lines[line - 1])
            file.write_text("".join(lines))
            return f"{place['file']}:{line}: {wrong} → {right}"
    return None


def correction(directory: Path, failure: dict[str, Any], place: dict[str, Any]) -> tuple[str, str] | None:
    """A word of the line, and what it should be."""
    message = place.get("message", "")
    # A compiler knows a name that is almost the same.
    if found := re.search(r"['‘](\w+)['’].*did you mean ['‘](\w+)['’]", message):
        return found[1], found[2]
    # COPY of a file that is not there, and one of almost that name is.
    if failure.get("kind") == "copy_source_missing":
        words = failure.get("instruction", "").split()[1:-1]
        names = [str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()]
        for word in words:
            near = difflib.get_close_matches(word, names, n=1)
            if near and word not in names:
                return word, near[0]
    return None


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
