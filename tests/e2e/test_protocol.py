"""The surface besides the four tools' answers: schemas, resources, prompts, progress."""

from __future__ import annotations

import base64
import itertools
import xml.etree.ElementTree
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import MakeServer
from helpers import ask, fail, files, log_text, submit, succeed, unique
from mcp import ClientSession
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import McpError
from mcp.types import PromptReference, ResourceTemplateReference, TextContent, TextResourceContents
from pydantic import AnyUrl

TOOLS = {"build", "status", "logs", "kill"}
FORBIDDEN = {"anyOf", "oneOf", "allOf", "$ref", "$defs", "const", "not", "patternProperties"}


def nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and all below it."""
    yield schema
    for below in schema.get("properties", {}).values():
        yield from nodes(below)
    if "items" in schema:
        yield from nodes(schema["items"])


def text_in(part: object) -> str:
    """The text of a content or a resource, which must be text."""
    assert isinstance(part, TextContent | TextResourceContents)
    return part.text


async def test_there_are_four_tools_that_every_host_takes(plain: ClientSession) -> None:
    tools = {tool.name: tool for tool in (await plain.list_tools()).tools}
    assert set(tools) == TOOLS
    for tool in tools.values():
        assert tool.description
        assert len(tool.description) <= 2048, "hosts cut it"
        assert tool.annotations is not None
        for schema in (tool.inputSchema, tool.outputSchema):
            assert schema and schema["type"] == "object"
            for node in nodes(schema):
                assert isinstance(node.get("type"), str), node
                assert not FORBIDDEN & set(node), node
                assert not node.get("format", "").startswith(("uint", "int")), node
                assert node["type"] != "array" or "items" in node, node
        for node in nodes(tool.inputSchema):
            assert node["type"] != "object" or node["additionalProperties"] is False, node
            assert all(below.get("description") for below in node.get("properties", {}).values())
        assert tool.annotations.readOnlyHint is (tool.name in ("status", "logs"))


async def test_a_build_is_a_resource(plain: ClientSession, base: str) -> None:
    word = unique("word")
    status = await succeed(plain, source=files(Containerfile=f"FROM {base}\nRUN echo {word}\n"))
    uri = f"build://{status['build_id']}"
    templates = {template.uriTemplate for template in (await plain.list_resource_templates()).resourceTemplates}
    assert any(template.startswith("build://{") and template.endswith("}") for template in templates)
    assert any(template.startswith("build://{") and template.endswith("}/log") for template in templates)
    told = text_in((await plain.read_resource(AnyUrl(uri))).contents[0])
    assert status["build_id"] in told and "succeeded" in told
    assert word in text_in((await plain.read_resource(AnyUrl(f"{uri}/log"))).contents[0])


async def test_there_is_a_prompt_for_a_failed_build(plain: ClientSession, base: str) -> None:
    word = unique("word")
    text = f"FROM {base}\nRUN echo {word}; exit 5\n"
    status = await fail(plain, "command_failed", "code", source=files(Containerfile=text))
    prompts = {prompt.name: prompt for prompt in (await plain.list_prompts()).prompts}
    prompt = prompts["fix-failed-build"]
    assert [argument.name for argument in prompt.arguments or []] == ["build_id"]
    answer = await plain.get_prompt("fix-failed-build", {"build_id": status["build_id"]})
    shown = "\n".join(text_in(message.content) for message in answer.messages)
    assert status["build_id"] in shown and "command_failed" in shown and "Containerfile:2" in shown
    assert word in shown and "not instructions" in shown


async def test_there_is_a_prompt_that_builds(plain: ClientSession) -> None:
    prompts = {prompt.name: prompt for prompt in (await plain.list_prompts()).prompts}
    assert {argument.name: argument.required for argument in prompts["build-image"].arguments or []} == {
        "source": True, "tag": False, "profile": False, "secrets": False,
    }  # fmt: skip
    answer = await plain.get_prompt("build-image", {"source": "/home/me/app", "secrets": "npm, gpg"})
    shown = text_in(answer.messages[0].content)
    assert '{"source":{"path":"/home/me/app"},"wait":45,"secrets":["npm","gpg"]}' in shown
    with pytest.raises(McpError, match="source is missing"):
        await plain.get_prompt("build-image", {"source": " "})
    with pytest.raises(McpError, match="there are build-image and fix-failed-build"):
        await plain.get_prompt("buid-image", {"source": "x"})


async def test_arguments_are_completed(make_server: MakeServer, base: str) -> None:
    server = make_server(secrets={"npm": "x" * 9, "npm-publish": "y" * 9, "gpg": "z" * 9}, profiles={"large": {"secrets": ["gpg"]}})
    fix, image = (PromptReference(type="ref/prompt", name=name) for name in ("fix-failed-build", "build-image"))
    any_build = ResourceTemplateReference(type="ref/resource", uri="build://{id}/log")

    async with server.connect() as session:

        async def said(ref: PromptReference | ResourceTemplateReference, name: str, value: str, **others: str) -> list[str]:
            answer = await session.complete(ref, {"name": name, "value": value}, others or None)
            assert answer.completion.total == len(answer.completion.values) and answer.completion.hasMore is False
            return answer.completion.values

        good = await succeed(session, source=files(Containerfile=f"FROM {base}\n"))
        bad = await fail(session, "command_failed", "code", source=files(Containerfile=f"FROM {base}\nRUN exit 5\n"))
        assert await said(any_build, "id", "") == [bad["build_id"], good["build_id"]]
        assert await said(any_build, "id", good["build_id"][:7]) == [good["build_id"]]
        assert await said(fix, "build_id", "") == [bad["build_id"]]
        assert await said(image, "profile", "") == ["default", "large"]
        assert await said(image, "profile", "l") == ["large"]
        assert await said(image, "secrets", "np") == ["npm", "npm-publish"]
        assert await said(image, "secrets", "npm, ") == ["npm,gpg", "npm,npm-publish"]
        assert await said(image, "secrets", "", profile="large") == ["gpg"]
        assert await said(image, "source", "/") == []


async def test_hosts_have_an_icon_to_show(make_server: MakeServer) -> None:
    async with stdio_client(make_server().parameters) as (read, write), ClientSession(read, write) as session:
        of_server = (await session.initialize()).serverInfo.icons or []
        of_tools = [icon for tool in (await session.list_tools()).tools for icon in tool.icons or []]
    assert len(of_server) == 1 and len({icon.src for icon in of_tools}) == 4
    for icon in [*of_server, *of_tools]:
        assert icon.src.startswith("data:image/svg+xml;base64,") and icon.sizes == ["any"]
        svg = xml.etree.ElementTree.fromstring(base64.b64decode(icon.src.partition(",")[2]))
        assert svg.tag.endswith("svg")


async def test_waiting_tells_progress(plain: ClientSession, base: str) -> None:
    loop = "for i in 1 2 3 4 5 6; do echo $i; sleep 1; done"
    build_id = await submit(plain, source=files(Containerfile=f"FROM {base}\nRUN echo {unique()}; {loop}\nRUN true\n"))
    told: list[tuple[float, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    result = await plain.call_tool("status", {"build_id": build_id, "wait": 45}, progress_callback=note)
    assert result.structuredContent and result.structuredContent["builds"][0]["state"] == "succeeded"
    assert len(told) >= 2
    assert all(earlier < later for (earlier, _), (later, _) in itertools.pairwise(told)), "progress must rise"
    assert all(message for _, message in told)


async def test_the_answer_of_build_with_wait_is_the_end(plain: ClientSession, base: str) -> None:
    word = unique("word")
    args = {"source": files(Containerfile=f"FROM {base}\nRUN echo {word}\n"), "wait": 50}
    answer = await ask(plain, "build", args)
    assert answer["state"] == "succeeded"
    assert word in await log_text(plain, answer["build_id"])
