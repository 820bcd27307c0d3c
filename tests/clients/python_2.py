"""The second line of the Python SDK."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from talk import read_wish, talk, wire


def connection(wish: dict[str, Any]) -> Any:
    if wish["transport"] == "stdio":
        program, *arguments = wish["command"]
        return StdioServerParameters(command=program, args=arguments, env=wish["env"])
    headers = {"Authorization": f"Bearer {wish['token']}"}
    if wish["transport"] == "sse":
        return sse_client(wish["url"], headers)
    return streamable_http_client(wish["url"], http_client=httpx2.AsyncClient(headers=headers, timeout=60))


async def main() -> None:
    wish = read_wish()
    async with Client(connection(wish), mode=wish["era"]) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]

        async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            return wire(await client.call_tool(name, arguments))

        await talk(wish, client.protocol_version, tools, call)


asyncio.run(main())
