"""Builds that are ended from outside: by the tool, or by SIGKILL; and whether what they then say is true."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from helpers import call, status_of, text_of, unique, wait_final, wait_for
from images import missing_blobs
from local_registry import LocalRegistry
from machine import Before
from mcp import ClientSession
from server import Server

# From the end of its processes to the end of a build, at most.
END_SECONDS = 60
# How long the last traces may take to vanish.
TRACE_SECONDS = 20


@dataclass
class Trial:
    """A build that is going to be ended, and what it has said of itself since."""

    registry: LocalRegistry
    via: str = ""
    """HOST:PORT that the build pushes to; the registry's own unless a proxy stands before it."""
    repository: str = field(default_factory=lambda: f"end/{unique()}")
    names: tuple[str, ...] = ("1", "2")
    build_id: str = ""
    end: dict[str, Any] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    """What kills answered."""

    @property
    def tags(self) -> list[str]:
        """What the build is to publish."""
        return [f"{self.via or self.registry.host}/{self.repository}:{name}" for name in self.names]

    def untruths(self) -> list[str]:
        """Where the final state, the registry and the answers of kills contradict one another."""
        state, image = self.end["state"], self.end.get("image", {})
        told = {tag["tag"]: tag for tag in image.get("tags", [])}
        found = []
        for name, tag in zip(self.names, self.tags, strict=True):
            there = self.registry.digest(self.repository, name)
            if there and (missing := missing_blobs(self.registry, self.repository, name)):
                found.append(f"{tag} lacks {missing}")
            if there and there != image.get("digest"):
                found.append(f"{tag} is {there}, the image {image.get('digest')}")
            if told.get(tag, {}).get("state") == "confirmed" and there != told[tag]["digest"]:
                found.append(f"{tag} is confirmed, and is {there}")
            if there and tag not in told:
                found.append(f"{tag} is there, and the build does not say so")
            if there and state == "cancelled":
                found.append(f"{tag} is there, and the build is cancelled")
        confirmed = [tag for tag in self.tags if told.get(tag, {}).get("state") == "confirmed"]
        if state == "succeeded" and confirmed != self.tags:
            found.append("it succeeded without all of its tags")
        if image.get("published", False) != (bool(self.tags) and confirmed == self.tags):
            found.append(f"published is {image.get('published')}, confirmed are {confirmed}")
        if state in ("failed", "lost", "timed_out") and "failure" not in self.end:
            found.append("it does not say why")
        if state == "lost" and not self.end["failure"]["retryable"]:
            found.append("it is lost, and not to be repeated")
        found += [f"the kill answered {answer}" for answer in self.answers if not self._agrees(answer)]
        return [f"{text}; {self.end}" for text in found]

    def _agrees(self, answer: dict[str, Any]) -> bool:
        if answer["kill_result"] == "stopping":
            return answer["state"] in ("queued", "running")
        if answer["state"] != self.end["state"]:
            return False
        return answer["kill_result"] == "already_finished" or answer["state"] == "cancelled"

    async def kill(self, session: ClientSession, wait: int = 40) -> dict[str, Any]:
        """Ends it by the tool; what is answered is kept."""
        result = await call(session, "kill", {"build_id": self.build_id, "reason": "trial", "wait": wait})
        answer = result.structuredContent
        assert answer and not result.isError, text_of(result)
        self.answers.append(answer)
        return answer

    async def kill_from_both(self, one: ClientSession, other: ClientSession, wait: int = 40) -> None:
        """Ends it from two servers at the same time."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.kill, one, wait)
            group.start_soon(self.kill, other, wait)

    async def ended(self, session: ClientSession, *others: ClientSession, seconds: float = END_SECONDS) -> str:
        """Waits for its end, which every server must see alike, and which must be true; returns the state."""
        self.end = await wait_final(session, self.build_id, seconds)
        for other in others:
            seen = await status_of(other, self.build_id)
            assert _lasting(seen) == _lasting(self.end), f"{seen} is not {self.end}"
        assert not self.untruths(), "\n".join(self.untruths())
        return self.end["state"]


def _lasting(status: dict[str, Any]) -> dict[str, Any]:
    """A final status without what depends on who asks, and on other builds."""
    return {name: value for name, value in status.items() if name not in ("mine", "typical_seconds")}


def events(server: Server, build_id: str) -> list[dict[str, Any]]:
    """Events that the log of a build has so far; of a publish also its words in between."""
    try:
        text = (server.state / "b" / build_id / "log.ndjson").read_text(errors="replace")
    except FileNotFoundError:
        return []
    # The last line may be half written.
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [record["event"] for line in whole if "event" in (record := json.loads(line))]


def record(server: Server, build_id: str) -> dict[str, Any]:
    """The record of a build as it lies on the disk."""
    return json.loads(Path(server.state, "b", build_id, "record.json").read_text())


async def nothing_left(before: Before) -> None:
    """Waits until builds have left nothing on this machine.

    What is there in one look and not in the next belongs to somebody else's test, or was about to go.
    """
    left = set(before.left())

    def look() -> bool:
        left.intersection_update(before.left())
        return not left

    try:
        await wait_for(look, "nothing left", TRACE_SECONDS)
    except AssertionError:
        raise AssertionError("left behind:\n" + "\n".join(sorted(left))) from None
