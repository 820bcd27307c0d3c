"""The first line of the Python SDK."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from talk import read_wish, talk, wire


def connection(wish: dict[str, Any]) -> AbstractAsyncContextManager[tuple[Any, ...]]:
    if wish["transport"] == "stdio":
        program, *arguments = wish["command"]
        return stdio_client(StdioServerParameters(command=program, args=arguments, env=wish["env"]))
    headers = {"Authorization": f"Bearer {wish['token']}"}
    if wish["transport"] == "sse":
        return sse_client(wish["url"], headers)
    return streamable_http_client(wish["url"], http_client=httpx.AsyncClient(headers=headers, timeout=60))


async def main() -> None:
    wish = read_wish()
    async with connection(wish) as (read, write, *_), ClientSession(read, write) as session:
        protocol = (await session.initialize()).protocolVersion
        tools = [tool.name for tool in (await session.list_tools()).tools]

        async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            return wire(await session.call_tool(name, arguments))

        await talk(wish, str(protocol), tools, call)


asyncio.run(main())
