"""What a test asks of a client in Python: its wish comes on standard input, what was seen goes to standard output.

Both are JSON. Whatever is raised ends the program with a status that is not zero.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


def read_wish() -> dict[str, Any]:
    """Transport, command or URL, era, and the arguments of the calls."""
    return json.load(sys.stdin)


async def talk(wish: dict[str, Any], protocol: str, tools: list[str], call: Call) -> None:
    """Makes the calls; `call` returns a result as it was on the wire."""
    seen: dict[str, Any] = {"protocol": protocol, "tools": tools, "build": await call("build", wish["build"])}
    build = {"build_id": seen["build"].get("structuredContent", {}).get("build_id")}
    seen["status"] = await call("status", build)
    seen["logs"] = await call("logs", build)
    seen["kill"] = await call("kill", build)
    seen["refused"] = await call("build", wish["refused"])
    print(json.dumps(seen))


def wire(result: Any) -> dict[str, Any]:
    """A result of an SDK as it was on the wire."""
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)
