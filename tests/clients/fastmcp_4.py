"""FastMCP's client."""

from __future__ import annotations

import asyncio
from typing import Any

from fastmcp import Client
from fastmcp.client.transports import ClientTransport, SSETransport, StdioTransport, StreamableHttpTransport
from talk import read_wish, talk, wire


def connection(wish: dict[str, Any]) -> ClientTransport:
    if wish["transport"] == "stdio":
        program, *arguments = wish["command"]
        return StdioTransport(program, arguments, env=wish["env"])
    transport = {"http": StreamableHttpTransport, "sse": SSETransport}[wish["transport"]]
    return transport(wish["url"], auth=wish["token"])


async def main() -> None:
    wish = read_wish()
    async with Client(connection(wish), mode=wish["era"]) as client:
        tools = [tool.name for tool in await client.list_tools()]

        async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            # Makes an object of the answer after the tool's schema, if it can.
            result = await client.call_tool(name, arguments, raise_on_error=False)
            seen = {"content": [wire(block) for block in result.content], "isError": result.is_error}
            if result.structured_content is not None:
                seen["structuredContent"] = result.structured_content
                assert result.data is not None
            return seen

        await talk(wish, str(client.protocol_version), tools, call)


asyncio.run(main())
