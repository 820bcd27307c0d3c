"""Who may what over HTTP, how much of it, and what operators see."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from conftest import distribution_buildah
from helpers import unique
from local_registry import LocalRegistry
from mcp_http import McpHttp
from server import Server, Settings, binary, serve

EMPTY = {"files": [{"path": "Containerfile", "text": "FROM scratch\nCOPY Containerfile /\n"}]}


@dataclass
class Team:
    """Principals of one server."""

    server: Server
    address: str

    def __post_init__(self) -> None:
        self._sessions: dict[str, McpHttp] = {}

    def result(self, name: str, tool: str, **arguments: Any) -> dict[str, Any]:
        if name not in self._sessions:
            made = subprocess.run([str(binary()), "token", name], env=self.server.env, check=True, capture_output=True, text=True)
            self._sessions[name] = McpHttp(f"{self.address}/mcp", made.stdout.strip())
        return self._sessions[name].call(tool, arguments)

    def ask(self, name: str, tool: str, **arguments: Any) -> dict[str, Any]:
        result = self.result(name, tool, **arguments)
        assert not result.get("isError"), result
        return result["structuredContent"]

    def refused(self, name: str, tool: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
        result = self.result(name, tool, **arguments)
        assert result.get("isError") and "structuredContent" not in result, result
        return result["content"][0]["text"], result["_meta"]["nomad-build/error"]


@pytest.fixture(scope="module")
def team(registry: LocalRegistry) -> Iterator[Team]:
    principals = {
        "token:boss": {"operator": True},
        "token:ann": {"tags": [f"{registry.host}/ann"], "git": ["https://git.example.com/ann"], "profiles": ["small", "default"]},
        "token:none": {"tags": [], "git": []},
        "token:few-*": {"builds": 2},
        "token:wait-*": {"queued": 1},
        "token:fast": {"calls_per_second": 2},
    }
    profiles = {"small": {"memory_mb": 512}, "large": {}}
    server = Server(Settings(distribution_buildah(), [registry], slots=1, profiles=profiles, principals=principals))
    with serve(server) as address:
        yield Team(server, address)
    server.remove()


def test_operators_see_and_end_the_builds_of_all(team: Team, base: str) -> None:
    text = f"FROM {base}\nRUN sleep 600; echo {unique()}\n"
    build = team.ask("ann", "build", source={"files": [{"path": "Containerfile", "text": text}]}, profile="default")["build_id"]
    for tool in ("status", "logs", "kill"):
        foreign, _ = team.refused("bob", tool, build_id=build)
        unknown, _ = team.refused("bob", tool, build_id="22222-22222")
        assert foreign.replace(build, "ID") == unknown.replace("22222-22222", "ID")
    assert team.ask("bob", "status")["builds"] == []
    refused, _ = team.refused("bob", "build", like=build)
    assert "there is no such build" in refused
    rows = team.ask("boss", "status")["builds"]
    assert [(row["build_id"], row["principal"]) for row in rows] == [(build, "token:ann")]
    assert "(of token:ann)" in team.result("boss", "status")["content"][0]["text"]
    assert team.ask("boss", "status", build_id=build, until="started", wait=40)["builds"][0]["principal"] == "token:ann"
    assert team.ask("boss", "logs", build_id=build, **{"from": "start"}, wait=20)["total_lines"] > 0
    killed = team.ask("boss", "kill", build_id=build, reason="too long", wait=40)
    assert killed["kill_result"] == "cancelled"
    own = team.ask("ann", "status", build_id=build)["builds"][0]
    assert own["cancel"]["by"] == "token:boss" and "principal" not in own


def test_lists_of_a_principal_hold_besides_those_of_all(team: Team, registry: LocalRegistry) -> None:
    offers = team.ask("ann", "status")["offers"]
    assert offers["registries"] == [f"{registry.host}/ann"]
    assert offers["profiles"] == ["small", "default"]
    assert [one["name"] for one in offers["profile_details"]] == ["small", "default"]
    everybody = team.ask("bob", "status")["offers"]
    assert (everybody["registries"], everybody["profiles"]) == ([], ["default", "large", "small"])
    tag = f"{registry.host}/ann/{unique()}:1"
    built = team.ask("ann", "build", source=EMPTY, tags=[tag], wait=45)
    assert (built["state"], built["profile"]) == ("succeeded", "small"), built
    for arguments, path in (
        ({"source": EMPTY, "tags": [f"{registry.host}/bob/x:1"]}, "tags[0]"),
        ({"source": EMPTY, "tags": [f"{registry.host}/annex/x:1"]}, "tags[0]"),
        ({"source": EMPTY, "profile": "large"}, "profile"),
        ({"source": {"git": "https://git.example.com/bob/x"}}, "source.git"),
    ):
        text, _ = team.refused("ann", "build", **arguments)
        assert f"] {path}:" in text, text
    text, error = team.refused("none", "build", source=EMPTY, tags=[tag])
    assert error["code"] == "not_allowed" and "none at all" in text
    assert "pushes are not allowed" in team.ask("none", "status")["offers"]["registries"][0]
    assert team.ask("none", "build", source=EMPTY, wait=45)["state"] == "succeeded"


def test_who_has_too_many_builds_is_told_when_to_come_back(team: Team, base: str) -> None:
    def endless() -> dict[str, Any]:
        text = f"FROM {base}\nRUN sleep 600; echo {unique()}\n"
        return {"files": [{"path": "Containerfile", "text": text}]}

    started: list[tuple[str, str]] = []
    try:
        for _ in range(2):
            started.append(("few-1", team.ask("few-1", "build", source=endless())["build_id"]))
        text, error = team.refused("few-1", "build", source=endless())
        assert "2 of your builds are unfinished" in text and "fewer than 2" in text
        assert (error["code"], error["retry_after_seconds"]) == ("limit_reached", 30)
        # Everybody has limits of its own, and the slot is taken.
        started.append(("wait-1", team.ask("wait-1", "build", source=endless())["build_id"]))
        text, _ = team.refused("wait-1", "build", source=endless())
        assert "1 of your builds wait for capacity" in text
        started.append(("wait-2", team.ask("wait-2", "build", source=endless())["build_id"]))
        # A repetition is no other build.
        assert team.ask("few-1", "kill", build_id=started[0][1], wait=40)["kill_result"] == "cancelled"
        started.append(("few-1", team.ask("few-1", "build", source=endless())["build_id"]))
    finally:
        for name, build in started:
            with contextlib.suppress(AssertionError):
                team.ask(name, "kill", build_id=build, wait=40)


def test_who_asks_too_often_is_told_when_to_come_back(team: Team) -> None:
    answers = [team.result("fast", "status") for _ in range(60)]
    refused = [answer for answer in answers if answer.get("isError")]
    assert refused, "nobody is refused"
    error = refused[0]["_meta"]["nomad-build/error"]
    assert error["code"] == "limit_reached" and error["retry_after_seconds"] in (1, 2)
    assert "at most 2 a second" in refused[0]["content"][0]["text"]
    assert not team.result("bob", "status").get("isError")


def test_principals_take_turns(team: Team, base: str) -> None:
    """One slot: who floods the queue does not keep others out."""

    def slow(name: str) -> str:
        text = f"FROM {base}\nRUN sleep 1; echo {unique()}\n"
        return team.ask(name, "build", source={"files": [{"path": "Containerfile", "text": text}]})["build_id"]

    flood = [slow("flood") for _ in range(6)]
    late = slow("late")
    ends = {}
    for name, build in [("late", late), *(("flood", one) for one in flood)]:
        status: dict[str, Any] = {"state": "queued"}
        while status["state"] in ("queued", "running"):
            status = team.ask(name, "status", build_id=build, wait=45)["builds"][0]
        assert status["state"] == "succeeded", status
        ends[build] = status["times"]["started"]
    before = [one for one in flood if ends[one] < ends[late]]
    assert len(before) <= 2, ends
