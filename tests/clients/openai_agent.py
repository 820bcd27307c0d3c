"""An agent of the OpenAI Agents SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Tool, Usage, set_tracing_disabled
from agents.mcp import MCPServer, MCPServerStdio, MCPServerStreamableHttp
from framework import next_call, tell
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from talk import read_wish

SECONDS = 90
"""For one call: a wait takes up to 50."""


class StandIn(Model):
    """Calls the tools as `next_call` says."""

    def __init__(self, wish: dict[str, Any]) -> None:
        self.wish = wish
        self.tools: list[str] = []
        self.answers: list[str] = []

    async def get_response(
        self, system_instructions: str | None, input: Any, model_settings: Any, tools: list[Tool], *_: Any, **__: Any
    ) -> ModelResponse:
        self.tools = [tool.name for tool in tools]
        outputs = [one["output"] for one in input if isinstance(one, dict) and one.get("type") == "function_call_output"]
        self.answers = [text_of(output) for output in outputs]
        return ModelResponse(output=[self.item()], usage=Usage(), response_id=None)

    def item(self) -> ResponseFunctionToolCall | ResponseOutputMessage:
        call = next_call(self.wish, self.answers)
        number = str(len(self.answers))
        if call:
            arguments = json.dumps(call[1])
            return ResponseFunctionToolCall(type="function_call", call_id=number, name=call[0], arguments=arguments)
        text = ResponseOutputText(type="output_text", text="done", annotations=[])
        return ResponseOutputMessage(type="message", id=number, role="assistant", status="completed", content=[text])

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


def text_of(output: Any) -> str:
    """What a tool gave, as the model sees it."""
    if isinstance(output, str):
        return output
    return "\n".join(part.get("text", "") for part in output)


def connection(wish: dict[str, Any]) -> MCPServer:
    if wish["transport"] == "stdio":
        program, *arguments = wish["command"]
        params = {"command": program, "args": arguments, "env": wish["env"]}
        return MCPServerStdio(params, client_session_timeout_seconds=SECONDS)
    params = {"url": wish["url"], "headers": {"Authorization": f"Bearer {wish['token']}"}, "timeout": SECONDS}
    return MCPServerStreamableHttp(params, client_session_timeout_seconds=SECONDS)


async def main() -> None:
    set_tracing_disabled(True)
    model = StandIn(read_wish())
    async with connection(model.wish) as server:
        # As OpenAI's own models are given them: in the strict form where it goes.
        agent = Agent(name="builder", mcp_servers=[server], model=model, mcp_config={"convert_schemas_to_strict": True})
        await Runner.run(agent, "Build it.")
    tell(model.tools, model.answers)


asyncio.run(main())
