"""A container registry on a free loopback port, for the demo and the tests.

Runs Debian's `docker-registry` over a temporary directory. Needs nothing but the standard library.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

MANIFEST_TYPES = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
START_SECONDS = 20.0


@dataclass(frozen=True)
class Login:
    """Name and password of the registry's one account."""

    user: str
    password: str

    @property
    def basic(self) -> str:
        """The credentials as HTTP and auth.json encode them."""
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def write_auth_file(path: Path, logins: dict[str, Login]) -> Path:
    """Writes credentials by registry in the format of docker's config.json."""
    auths = {host: {"auth": login.basic} for host, login in logins.items()}
    path.write_text(json.dumps({"auths": auths}))
    return path


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalRegistry:
    """A registry that runs while the `with` block does.

    Args:
        login: the account that every request must name; without one, no credentials are asked for.
        delete: whether manifests may be deleted.
    """

    def __init__(self, login: Login | None = None, delete: bool = False) -> None:
        self.login = login
        self.host = ""
        self._delete = delete
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="nomad-build-registry-"))

    def __enter__(self) -> LocalRegistry:
        try:
            # The port may be taken between the look and the start: then another one.
            for _ in range(5):
                if self._start(free_port()):
                    return self
            raise RuntimeError(f"docker-registry does not start:\n{self._log()}")
        except BaseException:
            self._stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def storage(self) -> Path:
        """Where everything is that was pushed."""
        return self._directory / "storage"

    def digest(self, repository: str, tag: str) -> str | None:
        """Digest of the manifest behind a tag, checked against its bytes; None where there is no such tag."""
        try:
            with self._open("GET", f"/v2/{repository}/manifests/{tag}", MANIFEST_TYPES) as answer:
                stated = answer.headers["Docker-Content-Digest"]
                actual = "sha256:" + hashlib.sha256(answer.read()).hexdigest()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        if stated != actual:
            raise RuntimeError(f"{self.host} states {stated} for a manifest of {actual}")
        return actual

    def config(self, repository: str, tag: str) -> tuple[str, dict[str, Any]]:
        """Digest and content of the configuration of the image behind a tag."""
        with self._open("GET", f"/v2/{repository}/manifests/{tag}", MANIFEST_TYPES) as answer:
            digest = json.load(answer)["config"]["digest"]
        with self._open("GET", f"/v2/{repository}/blobs/{digest}", "*/*") as answer:
            return digest, json.load(answer)

    def delete(self, repository: str, digest: str) -> None:
        """Deletes a manifest and every tag that points at it."""
        with self._open("DELETE", f"/v2/{repository}/manifests/{digest}", MANIFEST_TYPES):
            pass

    def requests(self) -> list[str]:
        """Its access log, a line a request."""
        lines = (self._directory / "log").read_text(errors="replace").splitlines()
        return [line for line in lines if '"' in line and " /v2/" in line]

    def _open(self, method: str, path: str, accept: str) -> http.client.HTTPResponse:
        request = urllib.request.Request(f"http://{self.host}{path}", method=method, headers={"Accept": accept})
        if self.login:
            request.add_header("Authorization", f"Basic {self.login.basic}")
        # Never through a proxy: the registry is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(request, timeout=10)

    def _start(self, port: int) -> bool:
        self.host = f"127.0.0.1:{port}"
        config = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(self._directory / "storage")},
                "delete": {"enabled": self._delete},
            },
            "http": {"addr": self.host, "secret": "one process, one secret"},
        }
        if self.login:
            accounts = self._directory / "htpasswd"
            command = ["htpasswd", "-B", "-b", "-c", str(accounts), self.login.user, self.login.password]
            subprocess.run(command, check=True, capture_output=True)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(accounts)}}
        # JSON is YAML, too.
        file = self._directory / "config.yml"
        file.write_text(json.dumps(config))
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if self._ready():
                return True
            time.sleep(0.02)
        raise RuntimeError(f"docker-registry is not ready after {START_SECONDS:.0f} s:\n{self._log()}")

    def _ready(self) -> bool:
        try:
            with self._open("GET", "/v2/", "*/*"):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _log(self) -> str:
        log = self._directory / "log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def _stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)
