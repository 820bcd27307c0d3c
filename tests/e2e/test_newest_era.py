"""The newest protocol, 2026-07-28, with the second generation of the Python SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from helpers import file_source, unique
from httpx2 import AsyncClient
from local_registry import LocalRegistry
from mcp import Client, StdioServerParameters
from mcp.client import Transport
from mcp.client.streamable_http import streamable_http_client
from server import Server, serve

VERSION = "2026-07-28"


@pytest.fixture(scope="module")
def address(plain_server: Server) -> Iterator[str]:
    with serve(plain_server) as address:
        yield address


@pytest.fixture(params=["stdio", "http"])
async def client(request: pytest.FixtureRequest, plain_server: Server, address: str) -> AsyncIterator[Client]:
    """A client of each transport in turn."""
    async with AsyncExitStack() as stack:
        way: StdioServerParameters | Transport = plain_server.parameters
        if request.param == "http":
            headers = {"Authorization": f"Bearer {plain_server.token}"}
            # A proxy of the environment is not meant for a server on this machine.
            http = await stack.enter_async_context(AsyncClient(headers=headers, timeout=90, trust_env=False))
            way = streamable_http_client(f"{address}/mcp", http_client=http)
        yield await stack.enter_async_context(Client(way, mode="auto", read_timeout_seconds=90))


async def ask(client: Client, tool: str, args: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The structured answer and the text of a call that must succeed."""
    result = await client.call_tool(tool, args)
    text = "\n".join(block.text for block in result.content if block.type == "text")
    assert not result.is_error, text
    assert text
    return result.structured_content, text


async def test_discover_finds_the_newest_version(client: Client) -> None:
    assert client.protocol_version == VERSION
    assert client.server_capabilities.tools is not None
    tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == {"build", "status", "logs", "kill"}


async def test_a_version_may_be_named_without_asking(plain_server: Server) -> None:
    async with Client(plain_server.parameters, mode=VERSION, read_timeout_seconds=30) as client:
        answer, _ = await ask(client, "status", {"limit": 1})
        assert "builds" in answer


async def test_the_era_before_is_spoken_too(plain_server: Server) -> None:
    async with Client(plain_server.parameters, mode="legacy", read_timeout_seconds=30) as client:
        assert client.protocol_version < VERSION
        assert len((await client.list_tools()).tools) == 4


async def test_a_build_is_published(client: Client, registry: LocalRegistry, base: str) -> None:
    repository = f"e2e/{unique()}"
    args = {
        "source": file_source({"Containerfile": f"FROM {base}\nRUN echo {repository} > /x\n"}),
        "tests": [{"command": f"grep {repository} /x"}],
        "tags": [f"{registry.host}/{repository}:1"],
    }
    started, text = await ask(client, "build", args)
    assert started["build_id"] in text
    answer, text = await ask(client, "status", {"build_id": started["build_id"], "wait": 45})
    status = answer["builds"][0]
    assert status["state"] == "succeeded", status
    assert registry.digest(repository, "1") == status["image"]["digest"]
    assert status["image"]["digest"] in text


async def test_bad_arguments_are_a_result(client: Client) -> None:
    result = await client.call_tool("build", {"sorce": {}})
    assert result.is_error
    assert result.structured_content is None
    assert result.content[0].text.startswith("error[invalid_argument]")
    assert "did you mean source" in result.content[0].text
