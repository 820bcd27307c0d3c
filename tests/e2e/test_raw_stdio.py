"""What goes over the wire, seen byte by byte, with nothing but the standard library's client."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import MakeServer
from helpers import file_source, sleep_marker, unique
from mcp_stdio import McpError, McpProcess
from server import Server


@pytest.fixture
def raw(plain_server: Server) -> Iterator[McpProcess]:
    with plain_server.raw() as process:
        process.initialize()
        yield process


def source(base: str, run: str) -> dict[str, Any]:
    return file_source({"Containerfile": f"FROM {base}\nRUN {run}\n"})


def goes_on(process: McpProcess) -> None:
    assert len(process.request("tools/list", timeout=10)["tools"]) == 4


def test_nothing_but_json_rpc_is_on_stdout(raw: McpProcess, base: str) -> None:
    build = raw.call("build", {"source": source(base, f"echo {unique()}; echo '{{\"jsonrpc\":1}}'"), "wait": 50})
    assert build["structuredContent"]["state"] == "succeeded"
    raw.call("build", {"source": 5})
    raw.call("logs", {"build_id": build["structuredContent"]["build_id"]})
    with pytest.raises(McpError):
        raw.request("no/such/method")
    assert raw.close() == 0
    for line in raw.lines:
        message = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        assert "method" in message or ("result" in message) != ("error" in message)


@pytest.mark.parametrize(
    "data",
    [
        b"this is no JSON\n",
        b"{\n",
        b"[]\n",
        b"null\n",
        b"\n",
        b'{"jsonrpc":"2.0","id":77}\n',
        b'{"jsonrpc":"2.0","id":78,"method":5}\n',
        b'{"jsonrpc":"2.0","id":79,"method":"tools/call","params":{"name":"build","arguments":[]}}\n',
        b'{"jsonrpc":"2.0","id":80,"method":"tools/call"}\n',
        b'\xff\xfe{"x"\n',
        b"[" * 100_000 + b"\n",
    ],
    ids=[
        "words",
        "open",
        "list",
        "null",
        "empty",
        "no-method",
        "ill-typed",
        "ill-arguments",
        "no-params",
        "bytes",
        "deep",
    ],
)
def test_a_malformed_line_does_not_end_the_server(raw: McpProcess, data: bytes) -> None:
    raw.send_bytes(data)
    goes_on(raw)


@pytest.mark.parametrize("data", [b"this is not JSON\n", b'{"half": \n', b'\xff\xfe{"x"\n', b"[" * 100_000 + b"\n"])
def test_a_line_that_is_no_json_is_answered(raw: McpProcess, data: bytes) -> None:
    raw.send_bytes(data)
    answer = raw.receive(10)
    assert (answer["id"], answer["error"]["code"]) == (None, -32700)
    goes_on(raw)


@pytest.mark.parametrize("arguments", ["[]", '"[1]"', '"{\\"source\\": 5}"', "7"])
def test_arguments_that_are_no_object_are_explained(raw: McpProcess, arguments: str) -> None:
    params = f'{{"name":"build","arguments":{arguments}}}'
    raw.send_bytes(f'{{"jsonrpc":"2.0","id":81,"method":"tools/call","params":{params}}}\n'.encode())
    result = raw.receive(10)["result"]
    assert result["isError"] and result["content"][0]["text"].startswith("error[invalid_argument]")


def test_arguments_may_be_a_json_text(raw: McpProcess) -> None:
    text = json.dumps(json.dumps({"limit": "1"}))
    params = f'{{"name":"status","arguments":{text}}}'
    raw.send_bytes(f'{{"jsonrpc":"2.0","id":82,"method":"tools/call","params":{params}}}\n'.encode())
    assert raw.receive(10)["result"]["structuredContent"]["counts"]


def test_a_line_may_come_in_parts(raw: McpProcess) -> None:
    line = json.dumps({"jsonrpc": "2.0", "id": 4711, "method": "tools/list", "params": {}}).encode() + b"\n"
    for part in (line[:10], line[10:40], line[40:]):
        raw.send_bytes(part)
    while raw.receive(10).get("id") != 4711:
        pass
    goes_on(raw)


def test_the_end_within_a_line_is_an_orderly_end(raw: McpProcess) -> None:
    raw.send_bytes(b'{"jsonrpc":"2.0","id":9,"meth')
    assert raw.close() == 0


def test_the_end_within_a_call_ends_no_build(plain_server: Server, raw: McpProcess, base: str) -> None:
    build = raw.call("build", {"source": source(base, f"echo {unique()}; sleep 5")})["structuredContent"]
    raw.start_request("tools/call", {"name": "status", "arguments": {"build_id": build["build_id"], "wait": 45}})
    begun = time.monotonic()
    raw.close()
    assert time.monotonic() - begun < 10
    with plain_server.raw() as later:
        later.initialize()
        answer = later.call("status", {"build_id": build["build_id"], "wait": 45})
        assert answer["structuredContent"]["builds"][0]["state"] == "succeeded"


def test_cancelling_a_call_ends_the_wait_and_not_the_build(raw: McpProcess, base: str) -> None:
    build = raw.call("build", {"source": source(base, f"sleep {sleep_marker()}")})["structuredContent"]
    number = raw.start_request(
        "tools/call", {"name": "status", "arguments": {"build_id": build["build_id"], "wait": 45}}
    )
    raw.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}})
    answer = raw.call("status", {"build_id": build["build_id"], "wait": 0}, timeout=10)
    assert answer["structuredContent"]["builds"][0]["state"] in ("queued", "running")
    killed = raw.call("kill", {"build_id": build["build_id"], "wait": 40})
    assert killed["structuredContent"]["kill_result"] == "cancelled"


def test_the_first_state_comes_at_once(make_server: MakeServer, base: str) -> None:
    seconds = []
    with make_server(slots=1).raw() as process:
        process.initialize()
        ids = []
        for _ in range(10):
            begun = time.monotonic()
            answer = process.call("build", {"source": source(base, f"sleep {sleep_marker()}"), "wait": 0})
            seconds.append(time.monotonic() - begun)
            assert answer["structuredContent"]["state"] in ("queued", "running")
            ids.append(answer["structuredContent"]["build_id"])
        for build_id in reversed(ids):
            process.call("kill", {"build_id": build_id})
    median = statistics.median(seconds)
    print(f"first state of a files build: median {median * 1000:.0f} ms, worst {max(seconds) * 1000:.0f} ms")
    assert max(seconds) < 1.0
