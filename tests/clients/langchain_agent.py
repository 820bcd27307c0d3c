"""An agent of LangChain, with the tools of langchain-mcp-adapters."""

from __future__ import annotations

import asyncio
from typing import Any

from framework import next_call, tell
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_mcp_adapters.client import MultiServerMCPClient
from talk import read_wish


class StandIn(BaseChatModel):
    """Calls the tools as `next_call` says."""

    wish: dict[str, Any]

    @property
    def _llm_type(self) -> str:
        return "stand-in"

    def bind_tools(self, tools: Any, **_: Any) -> StandIn:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        answers = [message.text for message in messages if isinstance(message, ToolMessage)]
        call = next_call(self.wish, answers)
        calls = [{"name": call[0], "args": call[1], "id": f"call-{len(answers)}"}] if call else []
        message = AIMessage(content="" if call else "done", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])


def connection(wish: dict[str, Any]) -> dict[str, Any]:
    if wish["transport"] == "stdio":
        program, *arguments = wish["command"]
        return {"transport": "stdio", "command": program, "args": arguments, "env": wish["env"]}
    headers = {"Authorization": f"Bearer {wish['token']}"}
    return {"transport": "streamable_http", "url": wish["url"], "headers": headers}


async def main() -> None:
    wish = read_wish()
    tools = await MultiServerMCPClient({"nomad-build": connection(wish)}).get_tools()
    agent = create_agent(StandIn(wish=wish), tools)
    done = await agent.ainvoke({"messages": [{"role": "user", "content": "Build it."}]})
    answers = [message.text for message in done["messages"] if isinstance(message, ToolMessage)]
    tell([tool.name for tool in tools], answers)


asyncio.run(main())
