"""Who means ill, or is broken, over HTTP: limits hold, and a good client beside is served."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import distribution_buildah
from local_registry import LocalRegistry
from mcp_http import McpHttp
from server import Server, Settings, serve

IDLE = 10_000
CONNECTIONS = 1000


@pytest.fixture(scope="module")
def served(registry: LocalRegistry) -> Iterator[tuple[Server, str]]:
    server = Server(Settings(distribution_buildah(), [registry], http={"connections": CONNECTIONS}))
    with serve(server) as address:
        yield server, address
    server.remove()


def good(served: tuple[Server, str]) -> McpHttp:
    server, address = served
    return McpHttp(f"{address}/mcp", server.token)


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    one = socket.create_connection((host, int(port)), timeout=60)
    one.settimeout(60)
    return one


def head(server: Server, *more: str, method: str = "POST", path: str = "/mcp") -> str:
    lines = [
        f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.token}",
        "Content-Type: application/json", "Accept: application/json, text/event-stream", *more,
    ]  # fmt: skip
    return "\r\n".join(lines) + "\r\n\r\n"


def read_all(one: socket.socket) -> bytes:
    """What comes until the other end closes."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while data := one.recv(65536):
            got += data
    return got


def rss(server: Server) -> float:
    """Memory of the server's process, in MiB."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if b"--http" in (process / "cmdline").read_bytes() and str(server.directory).encode() in (process / "environ").read_bytes():
                lines = (process / "status").read_text().splitlines()
                return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
    raise AssertionError("the server is gone")


@pytest.fixture
def impatient(registry: LocalRegistry) -> Iterator[tuple[Server, str]]:
    server = Server(Settings(distribution_buildah(), [registry], http={"idle": 5}))
    with serve(server) as address:
        yield server, address
    server.remove()


def test_those_who_are_slow_are_let_go(impatient: tuple[Server, str]) -> None:
    server, address = served = impatient
    begun = time.monotonic()
    # A head that never ends, a letter now and then; a body that never comes; nothing at all of a greeting.
    slow_head, slow_body, silent = connect(address), connect(address), connect(address)
    slow_head.sendall(head(server).encode()[:-4])
    slow_body.sendall(head(server, "Content-Length: 100").encode() + b"{")
    slow_head.setblocking(False)
    for number in range(120):
        try:
            if slow_head.recv(1024) == b"":
                break
            continue
        except BlockingIOError:
            pass
        except ConnectionError:
            break
        with contextlib.suppress(OSError):
            slow_head.send(b"x" if number else b"\r\nX-Slow: x")
        good(served).request("tools/list")
        time.sleep(0.5)
    else:
        raise AssertionError("a head may take for ever")
    assert silent.recv(1) == b""
    assert time.monotonic() - begun < 20
    assert b" 408 " in read_all(slow_body)
    assert time.monotonic() - begun < 60


def test_who_takes_no_answer_is_let_go(impatient: tuple[Server, str]) -> None:
    server, address = impatient
    one = connect(address)
    asked = b"GET /page/log.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    one.settimeout(1)
    # More than any buffer on the way holds, and nothing of it is read.
    begun = time.monotonic()
    sent = 0
    with contextlib.suppress(TimeoutError, ConnectionError):
        while sent < 100_000:
            sent += one.send(asked * 100) / len(asked)
    assert sent < 100_000, "everything was answered"
    deadline = begun + 30
    metrics = 'nomad_build_clients{kind="connection"} '
    while True:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}/metrics", timeout=10) as answer:
            line = next(line for line in answer.read().decode().splitlines() if line.startswith(metrics))
        if line == f"{metrics}1":
            break
        assert time.monotonic() < deadline, line
        time.sleep(0.2)
    one.close()
    assert good(impatient).request("tools/list")["tools"]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (["Content-Length: 9000000"], b" " * 9_000_000, 413),
        (["Transfer-Encoding: chunked"], (b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 6 + b"0\r\n\r\n", 413),
        (["Transfer-Encoding: chunked"], b"zz\r\n{}\r\n0\r\n\r\n", 400),
        (["Transfer-Encoding: chunked"], b"ffffffffffffffffff\r\n{}", 400),
        # The length does not count (RFC 9112, section 6.1): this is an empty message.
        (["Content-Length: 2", "Transfer-Encoding: chunked"], b"0\r\n\r\n", 415),
        (["Content-Length: 2", "Content-Length: 3"], b"{}x", 400),
        (["Content-Length: -1"], b"{}", 400),
        (["X-Long: " + "x" * 100_000, "Content-Length: 2"], b"{}", 431),
        (["Content-Length: 2"], b"{]", 415),
        (["Content-Length: 4"], b"\xff\xfe{}", 415),
    ],
    ids=["long", "long in chunks", "no chunk", "a chunk too long", "two lengths", "other two lengths", "negative", "long head", "no JSON", "no text"],
)  # fmt: skip
def test_what_is_no_message(served: tuple[Server, str], headers: list[str], body: bytes, status: int) -> None:
    server, address = served
    before = rss(server)
    one = connect(address)
    with contextlib.suppress(ConnectionError):
        one.sendall(head(server, "Connection: close", *headers).encode() + body)
    answer = read_all(one)
    # Who still sends when it is refused may lose the answer.
    assert not answer or answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert answer or status in (413, 400), "no answer"
    assert rss(server) < before + 32
    assert good(served).request("tools/list")["tools"]


def test_nesting_is_bounded(served: tuple[Server, str]) -> None:
    server, address = served
    one = connect(address)
    deep = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"build","arguments":' + b"[" * 500_000
    one.sendall(head(server, "Connection: close", f"Content-Length: {len(deep)}").encode() + deep)
    assert read_all(one).startswith(b"HTTP/1.1 415")
    assert good(served).request("tools/list")["tools"]


def test_ten_thousand_who_say_nothing(served: tuple[Server, str]) -> None:
    server, address = served
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, IDLE + 1000), hard))
    before = rss(server)
    idle: list[socket.socket] = []
    try:
        client = good(served)
        for number in range(IDLE):
            idle.append(connect(address))
            if number % 500 == 0:
                # One of many that has a token and waits for nothing.
                begun = time.monotonic()
                assert client.request("tools/list")["tools"]
                assert time.monotonic() - begun < 10
        assert rss(server) < before + 64
        # Those that were there first have made room.
        assert idle[0].recv(1) == b""
        text = client.call("status", {})
        assert not text.get("isError"), text
    finally:
        for one in idle:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_call_that_waits_is_not_crowded_out(served: tuple[Server, str], base: str) -> None:
    server, address = served
    client = good(served)
    text = f"FROM {base}\nRUN sleep 5; echo {os.getpid()} {time.time_ns()}\n"
    build = {"source": {"files": [{"path": "Containerfile", "text": text}]}, "wait": 45}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "build", "arguments": build}})
    waiting = connect(address)
    waiting.sendall(head(server, "Connection: close", f"Content-Length: {len(body)}").encode() + body.encode())
    crowd = [connect(address) for _ in range(CONNECTIONS + 200)]
    try:
        answer = read_all(waiting)
        assert b'"state":"succeeded"' in answer, answer[-500:]
        assert client.request("tools/list")["tools"]
    finally:
        for one in crowd:
            one.close()
