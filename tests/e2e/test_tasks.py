"""Builds as tasks (SEP-2663), for clients of 2026-07-28 that know tasks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import MakeServer
from helpers import files, sleep_marker, some_build_id, unique, wait_for
from mcp_http import McpHttp
from mcp_stdio import McpError, McpProcess
from server import Server, binary, serve

TASKS = "io.modelcontextprotocol/tasks"
Ask = Callable[..., dict[str, Any]]


def asking(process: McpProcess | McpHttp, version: str = "2026-07-28", *extensions: str) -> Ask:
    """Requests of a client that knows these extensions."""

    def ask(method: str, **params: Any) -> dict[str, Any]:
        meta = {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"extensions": {name: {} for name in extensions}},
        }
        return process.request(method, params | {"_meta": meta})

    return ask


def build(ask: Ask, text: str, **arguments: Any) -> dict[str, Any]:
    return ask("tools/call", name="build", arguments={"source": files(Containerfile=text)} | arguments)


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    return make_server()


@pytest.fixture
def ask(server: Server) -> Iterator[Ask]:
    with server.raw() as process:
        yield asking(process, "2026-07-28", TASKS)


async def ended(ask: Ask, task: str) -> dict[str, Any]:
    """A task at its end."""

    def look() -> dict[str, Any] | None:
        found = ask("tasks/get", taskId=task)
        assert found["resultType"] == "complete" and found["taskId"] == task
        return found if found["status"] != "working" else None

    return await wait_for(look, "the end of the task", 120)


def test_the_server_says_that_it_has_tasks(ask: Ask) -> None:
    assert TASKS in ask("server/discover")["capabilities"]["extensions"]


async def test_a_build_is_a_task_that_ends_with_its_answer(ask: Ask, base: str) -> None:
    marker = unique()
    task = build(ask, f"FROM {base}\nRUN echo {marker}\n", name="app")
    assert (task["resultType"], task["status"]) == ("task", "working")
    assert task["ttlMs"] >= 3600_000 and task["pollIntervalMs"] >= 500 and task["createdAt"] <= task["lastUpdatedAt"]
    assert task["taskId"] in task["statusMessage"]
    done = await ended(ask, task["taskId"])
    assert done["status"] == "completed" and "succeeded" in done["statusMessage"].lower()
    told = done["result"]["structuredContent"]
    assert (told["build_id"], told["state"], told["name"]) == (task["taskId"], "succeeded", "app")
    assert task["taskId"] in done["result"]["content"][0]["text"] and not done["result"].get("isError")
    again = ask("tasks/get", taskId=task["taskId"])
    assert again["result"]["structuredContent"] == told and again["lastUpdatedAt"] == done["lastUpdatedAt"]


async def test_the_answer_of_a_task_names_tools_and_links_as_a_call_does(make_server: MakeServer, base: str) -> None:
    server = make_server()
    server.env["NOMAD_BUILD_MCP_TOOL_PREFIX"] = "nb_"
    with server.raw() as process:
        ask = asking(process, "2026-07-28", TASKS)
        source = {"source": files(Containerfile=f"FROM {base}\nRUN echo {unique()} > /left\n"), "outputs": ["/left"]}
        task = ask("tools/call", name="nb_build", arguments=source)
        done = (await ended(ask, task["taskId"]))["result"]
        once = ask("tools/call", name="nb_build", arguments=source | {"wait": 50})
    for answer in (done, once):
        told = answer["structuredContent"]
        assert told["state"] == "succeeded" and told["next"].startswith("nb_logs {"), told
        assert f"next: {told['next']}" in answer["content"][0]["text"]
        links = [block for block in answer["content"] if block["type"] == "resource_link"]
        assert [link["uri"] for link in links] == [told["outputs"][0]["uri"]], answer


class NewestHttp(McpHttp):
    """A client of the newest protocol over HTTP: the headers repeat the body (SEP-2243)."""

    def request(self, method: str, params: dict[str, Any] | None = None, timeout: float = 60) -> dict[str, Any]:
        name = (params or {}).get("name") or (params or {}).get("taskId")
        self._headers |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Mcp-Name": str(name)}
        return super().request(method, params, timeout)


async def test_tasks_are_there_over_http_and_only_for_who_asked(server: Server, base: str) -> None:
    with serve(server) as address:

        def of(name: str) -> Ask:
            made = subprocess.run([str(binary()), "token", name], env=server.env, check=True, capture_output=True, text=True)
            return asking(NewestHttp(f"{address}/mcp", made.stdout.strip()), "2026-07-28", TASKS)

        ann, ben = of("ann"), of("ben")
        task = build(ann, f"FROM {base}\nRUN sleep {sleep_marker()}\n")
        await is_only_hers(ann, ben, task)


async def is_only_hers(ann: Ask, ben: Ask, task: dict[str, Any]) -> None:
    assert (task["resultType"], task["status"]) == ("task", "working")
    for method in ("tasks/get", "tasks/cancel"):
        with pytest.raises(McpError, match="-32602"):
            ben(method, taskId=task["taskId"])
    assert ann("tasks/get", taskId=task["taskId"])["status"] == "working"
    ann("tasks/cancel", taskId=task["taskId"])
    assert (await ended(ann, task["taskId"]))["status"] == "cancelled"


async def test_a_failed_build_is_a_task_that_was_answered(ask: Ask, base: str) -> None:
    task = build(ask, f"FROM {base}\nRUN exit 5\n")
    done = await ended(ask, task["taskId"])
    assert done["status"] == "completed" and not done["result"].get("isError")
    failure = done["result"]["structuredContent"]["failure"]
    assert (failure["kind"], failure["exit_code"], failure["line"]) == ("command_failed", 5, 2)


async def test_another_server_knows_the_task_and_ends_it(server: Server, ask: Ask, base: str) -> None:
    task = build(ask, f"FROM {base}\nRUN sleep {sleep_marker()}\n")["taskId"]
    with server.raw() as process:
        other = asking(process, "2026-07-28", TASKS)
        assert other("tasks/get", taskId=task)["status"] == "working"
        assert other("tasks/update", taskId=task, inputResponses={})["resultType"] == "complete"
        assert other("tasks/cancel", taskId=task)["resultType"] == "complete"
    assert (await ended(ask, task))["status"] == "cancelled"
    # Once more changes nothing.
    ask("tasks/cancel", taskId=task)
    status = ask("tools/call", name="status", arguments={"build_id": task})["structuredContent"]["builds"][0]
    assert status["state"] == "cancelled" and status["cancel"]["reason"] == "the task was cancelled"


def test_what_has_ended_or_cannot_begin_is_no_task(ask: Ask, base: str) -> None:
    done = build(ask, f"FROM {base}\nRUN echo {unique()}\n", wait=50)
    assert done["structuredContent"]["state"] == "succeeded" and "taskId" not in done
    wrong = build(ask, f"FROM {base}\n", tagz=["x"])
    assert wrong["isError"] is True and "taskId" not in wrong
    plan = build(ask, f"FROM {base}\n", validate_only=True)
    assert plan["structuredContent"]["state"] == "valid"
    listed = ask("tools/call", name="status", arguments={})
    assert "counts" in listed["structuredContent"]


def test_a_task_that_is_not_there_is_an_error(ask: Ask) -> None:
    for method in ("tasks/get", "tasks/cancel", "tasks/update"):
        more = {"inputResponses": {}} if method == "tasks/update" else {}
        with pytest.raises(McpError, match="-32602"):
            ask(method, taskId=some_build_id(), **more)


def test_who_does_not_know_tasks_gets_none(server: Server, base: str) -> None:
    text = f"FROM {base}\nRUN sleep {sleep_marker()}\n"
    with server.raw() as process:
        told = build(asking(process), text, key=unique())
        assert told["structuredContent"]["state"] in ("queued", "running") and "taskId" not in told
    # Tasks of earlier versions are others, whatever extension somebody declares.
    with server.raw() as process:
        version = "2025-11-25"
        params = {"protocolVersion": version, "capabilities": {"extensions": {TASKS: {}}}, "clientInfo": {"name": "x", "version": "1"}}
        process.request("initialize", params)
        process.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        told = process.call("build", {"source": files(Containerfile=text), "key": unique()})
        assert told["structuredContent"]["state"] in ("queued", "running") and "taskId" not in told
