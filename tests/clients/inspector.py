"""The Inspector's command line, once for each call; it and the Node that runs it lie beside this program."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from talk import read_wish, talk

HERE = Path(__file__).parent
INSPECTOR = [str(HERE / "node"), str(HERE / "node_modules/.bin/mcp-inspector"), "--cli", "--format", "json"]
TOOL_FAILED = 5


def inspect(wish: dict[str, Any], *options: str) -> tuple[dict[str, Any], int]:
    """What the Inspector prints, and its status."""
    command = [*INSPECTOR, "--protocol-era", wish["era"], *options]
    if wish["transport"] == "stdio":
        for name, value in wish["env"].items():
            command += ["-e", f"{name}={value}"]
        command += ["--transport", "stdio", *wish["command"]]
    else:
        command += ["--header", f"Authorization: Bearer {wish['token']}"]
        command += ["--transport", wish["transport"], "--server-url", wish["url"]]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        sys.exit(f"{options} ended with status {done.returncode}")
    return json.loads(done.stdout), done.returncode


async def main() -> None:
    wish = read_wish()

    async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        options = ["--method", "tools/call", "--tool-name", name, "--tool-args-json", json.dumps(arguments)]
        answer, status = inspect(wish, *options)
        assert status == (TOOL_FAILED if answer["result"].get("isError") else 0), (status, answer)
        return answer["result"]

    hello, status = inspect(wish, "--method", "initialize")
    assert status == 0, hello
    listed, status = inspect(wish, "--method", "tools/list", "--strict")
    assert status == 0 and not listed.get("schemaFindings"), listed
    tools = [tool["name"] for tool in listed["result"]["tools"]]
    await talk(wish, hello["result"]["protocolVersion"], tools, call)


asyncio.run(main())
