"""A server over HTTP on this machine: who gets in, and what is told to whom."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import distribution_buildah
from local_registry import LocalRegistry
from mcp_http import McpHttp
from mcp_stdio import McpError
from server import Server, Settings, binary


@pytest.fixture
def settings(registry: LocalRegistry) -> Iterator[Server]:
    server = Server(Settings(distribution_buildah(), [registry]))
    yield server
    server.remove()


@contextmanager
def serve(server: Server, *options: str) -> Iterator[str]:
    """Runs `serve --http` on a free port; its address."""
    log = server.directory / "http.log"
    command = [*server.command, "--http", "127.0.0.1:0", *options]
    with log.open("w") as errors:
        process = subprocess.Popen(command, env=server.env, stderr=errors)
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"address=(\S+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield f"http://{found[1]}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()


def tool(session: McpHttp, name: str, **arguments: object) -> dict:
    result = session.call(name, arguments)
    assert not result.get("isError"), result
    return result["structuredContent"]


def test_the_first_start_makes_a_token(settings: Server) -> None:
    with serve(settings) as address:
        secret = settings.state / "token"
        assert secret.stat().st_mode & 0o777 == (settings.state / "tokens").stat().st_mode & 0o777 == 0o600
        assert str(secret) in (settings.directory / "http.log").read_text()
        token = secret.read_text().strip()
        session = McpHttp(f"{address}/mcp", token)
        assert session.initialize()["serverInfo"]["name"] == "nomad-build"
        names = [tool["name"] for tool in session.request("tools/list")["tools"]]
        assert names == ["build", "status", "logs", "kill"]
        made = tool(session, "build", source={"files": [{"path": "Containerfile", "text": "FROM scratch\nCOPY Containerfile /\n"}]}, wait=45)
        assert made["state"] == "succeeded", made
        # Others are let in without a restart, and out.
        command = [str(binary()), "token", "ann"]
        ann = subprocess.run(command, env=settings.env, check=True, capture_output=True, text=True).stdout.strip()
        hers = McpHttp(f"{address}/mcp", ann)
        hers.initialize()
        seen = tool(hers, "status")
        assert seen["builds"] == []
        # Directories of the server are not for those who are elsewhere.
        assert seen["offers"]["sources"] == ["git", "files"]
        tokens = settings.state / "tokens"
        tokens.write_text("".join(line for line in tokens.read_text().splitlines(True) if not line.startswith("ann ")))
        with pytest.raises(McpError, match="401"):
            hers.request("tools/list")
    log = (settings.directory / "http.log").read_text()
    assert token not in log and ann not in log
    with serve(settings) as address:
        assert secret.read_text().strip() == token
        session = McpHttp(f"{address}/mcp", token)
        session.initialize()
        assert [build["build_id"] for build in tool(session, "status")["builds"]] == [made["build_id"]]


def test_without_tokens_only_on_loopback(settings: Server) -> None:
    with serve(settings, "--no-auth") as address:
        session = McpHttp(f"{address}/mcp", "any")
        session.initialize()
        assert tool(session, "status")["builds"] == []
        assert not (settings.state / "tokens").exists()
    command = [*settings.command, "--http", "0.0.0.0:0", "--no-auth"]
    done = subprocess.run(command, env=settings.env, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "--no-auth is for loopback only" in done.stderr, done.stderr


def test_bad_requests_are_answered(settings: Server) -> None:
    with serve(settings, "--no-auth") as address:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def post(body: bytes, **headers: str) -> int:
            usual = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
            try:
                request = urllib.request.Request(f"{address}/mcp", body, usual | headers)
                return opener.open(request, timeout=30).status
            except urllib.error.HTTPError as error:
                return error.code

        hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
        assert post(hello) == 200
        assert post(b"{") in (400, 415)
        assert post(hello, **{"Content-Type": "text/plain"}) == 415
        assert post(hello, Accept="text/html") == 406
        assert post(hello, Host="evil.example.com") == 403
        assert post(hello, Origin="http://evil.example.com") == 403
        assert post(b" " * (5 << 20)) == 413
        assert post(hello) == 200
