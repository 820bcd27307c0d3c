"""An HTTP proxy before a server of the tests, which holds chosen requests until it is told to let go."""

from __future__ import annotations

import http.client
import re
import select
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# No test may wait for ever.
_LONGEST = 120.0
_OWN_HEADERS = ("connection", "content-length", "keep-alive", "transfer-encoding")


class Hold:
    """One request that is held: before the server gets it, or only its answer."""

    def __init__(self, method: str, path: str, nth: int, answer: bool, late: bool) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()
        self.answer = answer
        self.late = late
        self._method, self._path = re.compile(method), re.compile(path)
        self._before = nth - 1

    def takes(self, method: str, path: str) -> bool:
        """Whether this is the request; call it once a request."""
        if self.reached.is_set() or not (self._method.fullmatch(method) and self._path.search(path)):
            return False
        if self._before:
            self._before -= 1
            return False
        self.reached.set()
        return True

    def release(self) -> None:
        """Lets the request, or its answer, go on."""
        self.released.set()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self._body()
        hold = self.server.holding.find(self.command, self.path)
        if hold and not hold.answer:
            hold.released.wait(_LONGEST)
            if self._client_is_gone() and not hold.late:
                self.close_connection = True
                return
        try:
            status, headers, content = self._ask(body)
        except OSError:
            # Servers end before the proxy does, when a test does.
            self.close_connection = True
            return
        if hold and hold.answer:
            hold.released.wait(_LONGEST)
        try:
            self._answer(status, headers, content)
        except OSError:
            self.close_connection = True

    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = _serve

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.holding.upstream, timeout=_LONGEST)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            # One by one: there may be several of a name.
            for name, value in self.headers.items():
                if name.lower() not in _OWN_HEADERS:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        length = str(len(content))
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _OWN_HEADERS:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                length = value
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    def _client_is_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the tests' output is for failures."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, holding: HoldingProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.holding = holding

    def handle_error(self, *address: object) -> None:
        """A client that was killed in the middle of a request is what these tests are about."""
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handle_error(*address)


class HoldingProxy:
    """Listens at `host` and passes everything on to `upstream` (both HOST:PORT)."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self._server = _Server(self)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._holds: list[Hold] = []
        self._lock = threading.Lock()

    def __enter__(self) -> HoldingProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release_all()
        self._server.shutdown()
        self._server.server_close()

    def hold(self, method: str, path: str, nth: int = 1, answer: bool = False, late: bool = False) -> Hold:
        """Holds the nth request from now on of this method and path.

        Args:
            method: a regular expression for the whole method.
            path: a regular expression for a part of the path.
            answer: the server gets the request; only its answer is held.
            late: a request whose client is gone meanwhile goes on all the same, as on a slow line.
        """
        hold = Hold(method, path, nth, answer, late)
        with self._lock:
            self._holds.append(hold)
        return hold

    def release_all(self) -> None:
        """Lets everything go on that is held."""
        with self._lock:
            for hold in self._holds:
                hold.release()

    def find(self, method: str, path: str) -> Hold | None:
        """The hold that takes this request."""
        with self._lock:
            return next((hold for hold in self._holds if hold.takes(method, path)), None)
