"""A Model Context Protocol client over Streamable HTTP that needs nothing but the standard library."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from mcp_stdio import PROTOCOL_VERSION, McpError


class McpHttp:
    """A server at a URL, which keeps no session for its clients."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        # A proxy of the environment is not meant for a server on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._next_id = 0

    def initialize(self) -> dict[str, Any]:
        """The handshake; returns what the server says of itself."""
        client = {"name": "nomad-build-stdlib", "version": "1"}
        params = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": client}
        result = self.request("initialize", params)
        self._headers["MCP-Protocol-Version"] = result["protocolVersion"]
        return result

    def call(self, tool: str, arguments: dict[str, Any], timeout: float = 60) -> dict[str, Any]:
        """Calls a tool and returns its result, which may be an error of the tool."""
        return self.request("tools/call", {"name": tool, "arguments": arguments}, timeout)

    def request(self, method: str, params: dict[str, Any] | None = None, timeout: float = 60) -> dict[str, Any]:
        """Sends a request and returns its result.

        Raises:
            McpError: the answer is an error, or there is none.
        """
        self._next_id += 1
        message = {"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params or {}}
        request = urllib.request.Request(self._url, json.dumps(message).encode(), self._headers)
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                text, kind = answer.read().decode(), answer.headers.get_content_type()
        except urllib.error.HTTPError as error:
            raise McpError(f"{method}: {error.code} {error.read().decode(errors='replace')}") from error
        except OSError as error:
            raise McpError(f"{method}: {error}") from error
        for answer in _messages(text) if kind == "text/event-stream" else [json.loads(text)]:
            if answer.get("id") == self._next_id and "method" not in answer:
                if "error" in answer:
                    raise McpError(f"{method}: {answer['error']}")
                return answer["result"]
        raise McpError(f"{method}: the server did not answer")


def _messages(stream: str) -> list[dict[str, Any]]:
    """What an event stream brought (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    events = ("".join(line[5:] for line in event.splitlines() if line.startswith("data:")) for event in stream.split("\n\n"))
    return [json.loads(event) for event in events if event.strip()]
