"""A Model Context Protocol client over stdio that needs nothing but the standard library.

It shows what goes over the wire: one JSON-RPC message a line, nothing else.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

PROTOCOL_VERSION = "2025-06-18"


class McpError(RuntimeError):
    """The server answered a request with a JSON-RPC error, or not at all."""


class McpProcess:
    """A server that was started as a subprocess, and the connection to it.

    `lines` keeps every line that the server wrote to its standard output.
    """

    def __init__(self, command: list[str], env: dict[str, str], stderr: Path | None = None) -> None:
        errors: BinaryIO | None = stderr.open("ab") if stderr else None
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=env,
                start_new_session=True,
            )
        finally:
            if errors:
                errors.close()
        self.lines: list[bytes] = []
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._next_id = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> McpProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            try:
                self.close()
            except subprocess.TimeoutExpired:
                self.kill()

    def initialize(self) -> dict[str, Any]:
        """The handshake; returns what the server says of itself."""
        client = {"name": "nomad-build-stdlib", "version": "1"}
        params = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": client}
        result = self.request("initialize", params)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return result

    def call(self, tool: str, arguments: dict[str, Any], timeout: float = 60) -> dict[str, Any]:
        """Calls a tool and returns its result, which may be an error of the tool."""
        return self.request("tools/call", {"name": tool, "arguments": arguments}, timeout)

    def request(self, method: str, params: dict[str, Any] | None = None, timeout: float = 60) -> dict[str, Any]:
        """Sends a request and returns its result.

        Raises:
            McpError: the answer is a JSON-RPC error, or there is none within `timeout` seconds.
        """
        number = self.start_request(method, params)
        deadline = time.monotonic() + timeout
        while True:
            message = self.receive(deadline - time.monotonic())
            if message.get("id") != number or "method" in message:
                continue
            if "error" in message:
                raise McpError(f"{method}: {message['error']}")
            return message["result"]

    def start_request(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Sends a request without waiting; returns its id."""
        self._next_id += 1
        self.send({"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params or {}})
        return self._next_id

    def send(self, message: dict[str, Any]) -> None:
        """Sends one message."""
        self.send_bytes(json.dumps(message).encode() + b"\n")

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes as they are."""
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next message of the server."""
        try:
            message = self._messages.get(timeout=max(timeout, 0.001))
        except queue.Empty:
            raise McpError("the server does not answer in time") from None
        if message is None:
            raise McpError(f"the server has ended (exit status {self.process.wait()})")
        return message

    def close(self, timeout: float = 15) -> int:
        """Ends the connection as a client does, and returns the server's exit status."""
        assert self.process.stdin
        self.process.stdin.close()
        status = self.process.wait(timeout)
        self._reader.join()
        return status

    def kill(self) -> None:
        """Kills the server process itself, and nothing that it started."""
        self.process.kill()
        self.process.wait()
        self._reader.join(5)

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                self._messages.put(message)
        self._messages.put(None)
