"""A server with a page, a browser, and somebody who looks: what all tests of the page share."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from browser import Page, chromium
from conftest import distribution_buildah
from helpers import files, unique
from local_registry import LocalRegistry, free_port
from machine import processes_with
from mcp_http import McpHttp
from selenium.webdriver import Chrome
from server import Server, Settings, binary, serve
from test_http import tool

SLOTS = 2
"""Builds that run at the same time."""


@dataclass
class Site:
    """A server over HTTP with a page."""

    server: Server
    address: str

    def token(self, name: str) -> str:
        """A new token."""
        command = [str(binary()), "token", name]
        return subprocess.run(command, env=self.server.env, check=True, capture_output=True, text=True).stdout.strip()

    def agent(self, token: str) -> McpHttp:
        """An agent of whoever has the token."""
        session = McpHttp(f"{self.address}/mcp", token)
        session.initialize()
        return session


@dataclass
class Visit:
    """Somebody new with a tab, and her agent."""

    page: Page
    token: str
    agent: McpHttp

    def build(self, **arguments: object) -> str:
        return tool(self.agent, "build", **arguments)["build_id"]

    def ended(self, **arguments: object) -> dict:
        """A build that has ended."""
        build_id = self.build(**arguments)
        for _ in range(6):
            status = self.status(build_id, wait=40)
            if status["state"] not in ("queued", "running"):
                return status
        raise AssertionError(status)

    def status(self, build_id: str, wait: int = 0) -> dict:
        return tool(self.agent, "status", build_id=build_id, wait=wait)["builds"][0]


def configured(registry: LocalRegistry) -> tuple[Server, int]:
    """A server, and a port for it."""
    return Server(Settings(distribution_buildah(), [registry], slots=SLOTS)), free_port()


@pytest.fixture(scope="module")
def site(registry: LocalRegistry) -> Iterator[Site]:
    server, port = configured(registry)
    with serve(server, at=f"127.0.0.1:{port}") as address:
        yield Site(server, address)
    server.remove()


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def visit(site: Site, driver: Chrome) -> Iterator[Visit]:
    token = site.token(unique("ann"))
    page = Page(driver, site.address)
    agent = site.agent(token)
    yield Visit(page, token, agent)
    for build in tool(agent, "status", state=["unfinished"], limit=50)["builds"]:
        tool(agent, "kill", build_id=build["build_id"], wait=30)
    # Scripts that throw, what the policy forbids, what does not load: but for a token that is asked for.
    complaints = [line for line in page.console() if "401" not in line]
    assert not complaints, complaints


def release(marker: str) -> None:
    """Ends the `sleep` of a build, once it is there."""
    deadline = time.monotonic() + 60
    while True:
        sleeping = [line for line in processes_with(f"sleep {marker}") if line.split(": ", 1)[1].startswith("sleep ")]
        for line in sleeping:
            os.kill(int(line.split(":")[0]), signal.SIGKILL)
        if sleeping:
            return
        assert time.monotonic() < deadline, f"nothing sleeps {marker} s"
        time.sleep(0.05)


def waiting(marker: str) -> str:
    """A command that goes on when it is released."""
    return f"(sleep {marker} || true)"


def slow(base: str, marker: str) -> dict:
    return files(Containerfile=f"FROM {base}\nRUN echo begun-{marker}; {waiting(marker)}\nRUN echo after-{marker}\n")
