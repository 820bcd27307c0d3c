"""Services of the host that no foreign code may reach, on every way that leads to them."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import secrets
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def do_GET(self) -> None:
        before, redirect, after = self.path.partition("/redirect/")
        for part in before.partition("?")[0].split("/"):
            self.server.calls[part].append(str(self.headers))
        if redirect:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/{after}")
        elif "/private/" in before and "Authorization" not in self.headers:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="bait"')
        else:
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the tests' output is for failures."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET6

    def __init__(self, calls: dict[str, list[str]]) -> None:
        self.calls = calls
        super().__init__(("::", 0), _Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class Services:
    """Runs while the `with` block does.

    An HTTP server and a UDP port of the same number on every address: below /redirect/ it leads to another name of the
    host, below /private/ it asks for credentials. An abstract socket. Somebody who says the canary on the loopback
    interface all the time, and calls a port that nobody listens on. As root also a link-local address. `calls` has the
    headers of every call, by each part of its path.
    """

    def __init__(self, canary: str) -> None:
        self.calls: dict[str, list[str]] = defaultdict(list)
        self.abstract = f"nomad-build-{canary}"
        # As where clouds have their metadata services; another one for each run on this machine.
        self.metadata = f"169.254.{secrets.randbelow(256)}.{secrets.randbelow(256)}"
        self._canary = canary.encode()
        self._stack = contextlib.ExitStack()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.free_port = int(free.getsockname()[1])

    def __enter__(self) -> Services:
        with contextlib.ExitStack() as stack:
            self._stack = stack
            self._add_metadata_address()
            http = _Http(self.calls)
            self.port = http.server_port
            self._in_thread(lambda: http.serve_forever(0.05), http.shutdown, http.server_close)
            self._listen_udp()
            self._listen_abstract()
            self._talk()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _in_thread(self, work: Callable[[], object], stop: Callable[[], object], close: Callable[[], object]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._stack.callback(close)
        self._stack.callback(thread.join)
        self._stack.callback(stop)

    def _add_metadata_address(self) -> None:
        command = ["ip", "address", "{}", f"{self.metadata}/32", "dev", "lo"]
        if os.geteuid() == 0:
            subprocess.run([word.format("add") for word in command], check=True)
            self._stack.callback(subprocess.run, [word.format("delete") for word in command], check=True)

    def _listen_udp(self) -> None:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", self.port))
        listener.settimeout(0.1)
        ended = threading.Event()

        def receive() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    self.calls[listener.recv(256).decode(errors="replace")].append("")

        self._in_thread(receive, ended.set, listener.close)

    def _listen_abstract(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"\0{self.abstract}")
        listener.listen()

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    match = re.match(r"GET /(\S+)", connection.recv(256).decode(errors="replace"))
                    if match:
                        self.calls[match[1]].append("")
                        connection.sendall(b"x")

        # Closing alone does not wake the thread that waits in accept.
        self._in_thread(accept, lambda: listener.shutdown(socket.SHUT_RDWR), listener.close)

    def _talk(self) -> None:
        ended = threading.Event()
        speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        def talk() -> None:
            while not ended.wait(0.05):
                with contextlib.suppress(OSError):
                    speaker.sendto(self._canary, ("127.0.0.1", 9))
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.free_port), 0.05):
                    pass

        self._in_thread(talk, ended.set, speaker.close)


def own_addresses() -> list[str]:
    """All addresses of this host, without their networks."""
    shown = subprocess.run(["ip", "--json", "address"], check=True, capture_output=True, text=True).stdout
    return [address["local"] for link in json.loads(shown) for address in link["addr_info"]]


def outer_addresses() -> list[str]:
    """Those that are neither of the loopback interface nor of one link alone."""
    found = [ipaddress.ip_address(address) for address in own_addresses()]
    return [str(address) for address in found if not (address.is_loopback or address.is_link_local)]


def gateway() -> str:
    """The way out of this host."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, destination, address, *_ = line.split()
        if destination == "00000000":
            return socket.inet_ntoa(bytes.fromhex(address)[::-1])
    return "192.0.2.1"
