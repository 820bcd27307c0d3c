"""Public MCP clients talk to the server: each over each transport, in each era of the protocol that it speaks.

The clients are small programs in tests/clients, which run with what scripts/setup.sh installs for them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import distribution_buildah
from helpers import files, unique
from server import REPOSITORY, Server, Settings, serve

TRANSPORTS = ("stdio", "http", "sessions", "sse")
"""How clients reach the server."""

PATHS = {"http": "/mcp", "sessions": "/mcp", "sse": "/sse"}
PROTOCOLS = {"legacy": "2025-11-25", "auto": "2026-07-28", "modern": "2026-07-28"}
SECONDS = 180
"""For all that one client does."""


@dataclass(frozen=True)
class Client:
    """A program in tests/clients."""

    program: str
    run_by: str
    """What runs it, among what scripts/setup.sh installs."""
    eras: tuple[str, ...]
    """How it may be told to choose the era of the protocol."""


CLIENTS = (
    Client("python_1.py", "py-mcp-1/bin/python", ("legacy",)),
    Client("python_2.py", "py-mcp-2/bin/python", ("legacy", "auto")),
    Client("fastmcp_4.py", "py-fastmcp/bin/python", ("legacy", "auto")),
    Client("typescript_1.mjs", "node-clients/node", ("legacy",)),
    Client("typescript_2.mjs", "node-clients/node", ("legacy", "auto")),
    Client("inspector.py", "py-mcp-1/bin/python", ("legacy", "auto", "modern")),
)

FRAMEWORKS = ("langchain_agent.py", "openai_agent.py", "pydantic_agent.py")
"""Agents of frameworks, with a stand-in for the model."""


def cases(*transports: str) -> Any:
    """A test's parameters: each client over each of the transports, in each era."""
    found = [
        pytest.param(client, transport, era, id=f"{Path(client.program).stem}-{transport}-{era}")
        for transport in transports
        for client in CLIENTS
        for era in client.eras
        # The oldest transport carries the era before alone, and only that one has sessions.
        if transport not in ("sse", "sessions") or era == "legacy"
    ]
    return pytest.mark.parametrize(("client", "transport", "era"), found)


@dataclass
class Served:
    """One server, over standard input and output and over HTTP."""

    server: Server
    addresses: dict[str, str]
    """Where each transport is served."""

    def connection(self, transport: str) -> dict[str, Any]:
        """What a client is told of the way to it."""
        if transport == "stdio":
            # To these, clients add PATH, HOME and the like.
            env = {name: value for name, value in self.server.env.items() if name.startswith("NOMAD_BUILD_")}
            return {"transport": transport, "command": self.server.command, "env": env}
        way = "sse" if transport == "sse" else "http"
        return {"transport": way, "url": self.addresses[transport] + PATHS[transport], "token": self.server.token}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    server = Server(Settings(distribution_buildah()))
    with serve(server) as address, serve(server, name="sessions", NOMAD_BUILD_HTTP_SESSIONS="true") as sessions:
        yield Served(server, {"http": address, "sessions": sessions, "sse": address})
    server.remove()


def installed(path: str) -> Path:
    """What scripts/setup.sh has put there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = cache / "nomad-build" / path
    assert found.exists(), f"{found} is missing: scripts/setup.sh test"
    return found


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs, with what those for Node import beside them."""
    directory = tmp_path_factory.mktemp("clients")
    for pattern in ("*.py", "*.mjs"):
        for program in (REPOSITORY / "tests/clients").glob(pattern):
            shutil.copy(program, directory)
    for name in ("node", "node_modules"):
        (directory / name).symlink_to(installed(f"node-clients/{name}"))
    return directory


def start(programs: Path, client: Client, wish: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Runs a client to its end."""
    env = os.environ | {"HOME": str(programs), "MCP_INSPECTOR_SECRET_STORE": "memory"}
    # A proxy of the environment is not meant for a server on this machine.
    env |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    command = [str(installed(client.run_by)), str(programs / client.program)]
    return subprocess.run(command, input=json.dumps(wish), env=env, capture_output=True, text=True, timeout=SECONDS)


def answer(result: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The structured answer and the text of a call that must have succeeded."""
    text = "\n".join(block["text"] for block in result["content"])
    assert not result.get("isError"), text
    return result["structuredContent"], text


@cases(*TRANSPORTS)
def test_a_client_does_what_agents_do(served: Served, programs: Path, client: Client, transport: str, era: str) -> None:
    name = unique()
    wish = {
        "era": era,
        **served.connection(transport),
        "build": {"source": files(Containerfile="FROM scratch\nCOPY Containerfile /\n"), "name": name, "wait": 45},
        "refused": {"source": {"git": 5}},
    }
    done = start(programs, client, wish)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    seen = json.loads(done.stdout)
    assert seen["protocol"] == PROTOCOLS[era]
    assert seen["tools"] == ["build", "status", "logs", "kill"]

    build, text = answer(seen["build"])
    assert (build["name"], build["state"]) == (name, "succeeded"), text
    assert build["summary"] in text and build["image"]["id"] in text
    status, text = answer(seen["status"])
    assert [one["build_id"] for one in status["builds"]] == [build["build_id"]]
    assert build["image"]["id"] in text
    logs, text = answer(seen["logs"])
    assert logs["complete"] and "COPY Containerfile /" in logs["text"] and logs["text"] in text
    kill, text = answer(seen["kill"])
    assert kill["kill_result"] == "already_finished" and build["build_id"] in text

    refused = seen["refused"]
    assert refused["isError"] and "structuredContent" not in refused
    assert refused["content"][0]["text"].startswith("error[invalid_argument] source.git")


@pytest.mark.parametrize("transport", ["stdio", "http"])
@pytest.mark.parametrize("program", FRAMEWORKS)
def test_a_framework_takes_the_tools_in(served: Served, programs: Path, program: str, transport: str) -> None:
    build = {"source": files(Containerfile="FROM scratch\nCOPY Containerfile /\n"), "name": unique(), "wait": 45}
    agent = Client(program, "py-frameworks/bin/python", ())
    done = start(programs, agent, {**served.connection(transport), "build": build})
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    seen = json.loads(done.stdout)
    assert seen["tools"] == ["build", "status", "logs", "kill"]
    built, status, logs, kill = seen["answers"]
    assert build["name"] in built and "succeeded" in built
    assert "succeeded" in status and "COPY Containerfile /" in logs and "already_finished" in kill


@cases(*(transport for transport in TRANSPORTS if transport != "stdio"))
def test_a_client_with_a_wrong_token_ends(
    served: Served, programs: Path, client: Client, transport: str, era: str
) -> None:
    wish = {"era": era, **served.connection(transport), "token": "nbt_wrong"}
    done = start(programs, client, wish | {"build": {}, "refused": {}})
    assert done.returncode != 0 and not done.stdout, done.stdout
    # What each lets through of the answer.
    assert re.search("401|the token is not known here|auth_required", done.stderr), done.stderr
