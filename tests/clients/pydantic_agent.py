"""An agent of Pydantic AI."""

from __future__ import annotations

import asyncio
from typing import Any

from framework import next_call, tell
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from talk import read_wish


def connection(wish: dict[str, Any]) -> MCPToolset:
    if wish["transport"] == "stdio":
        program, *arguments = wish["command"]
        server = {"command": program, "args": arguments, "env": wish["env"]}
    else:
        server = {"url": wish["url"], "headers": {"Authorization": f"Bearer {wish['token']}"}}
    return MCPToolset({"mcpServers": {"nomad-build": server}})


async def main() -> None:
    wish = read_wish()
    tools: list[str] = []
    answers: list[str] = []

    async def stand_in(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        tools[:] = [tool.name for tool in info.function_tools]
        parts = [part for message in messages for part in message.parts]
        answers[:] = [part.model_response_str() for part in parts if isinstance(part, ToolReturnPart)]
        call = next_call(wish, answers)
        return ModelResponse(parts=[ToolCallPart(*call) if call else TextPart("done")])

    agent = Agent(FunctionModel(stand_in), toolsets=[connection(wish)])
    async with agent:
        await agent.run("Build it.")
    tell(tools, answers)


asyncio.run(main())
