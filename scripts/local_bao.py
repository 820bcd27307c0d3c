"""An OpenBao of one's own on loopback, which speaks Vault's API, for the tests.

Runs the server that `scripts/setup.sh test` installs, in memory, and sets it up by nomad/vault/setup.sh
as nomad/README.md tells operators to. Needs nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from local_api import request_json
from local_registry import free_port

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS = 30.0


def program() -> Path:
    """The command line `bao`, which is the server, too."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "nomad-build/openbao/bin/bao"


class LocalBao:
    """A server that runs while the `with` block does."""

    def __init__(self, tls: bool = False) -> None:
        self.address = ""
        self.tls = tls
        self.token = secrets.token_hex(16)
        self.directory = Path(tempfile.mkdtemp(prefix="nomad-build-bao-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalBao:
        for _ in range(5):
            if self._start(free_port()):
                return self
        self._stop()
        raise RuntimeError(f"OpenBao does not start:\n{self.log()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def env(self) -> dict[str, str]:
        """What the command lines of Vault and OpenBao need to find it."""
        names = {"ADDR": self.address, "TOKEN": self.token}
        both = {f"{kind}_{name}": value for name, value in names.items() for kind in ("VAULT", "BAO")}
        return os.environ | both | {"VAULT_CLI": str(program()), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    @property
    def ca(self) -> Path:
        """The authority of its certificate, where it has one (`tls`)."""
        return self.directory / "vault-ca.pem"

    def agent(self) -> str:
        """What an agent of Nomad needs in its configuration."""
        return f"""
vault {{
  enabled = true
  address = "{self.address}"
  default_identity {{
    aud = ["vault.io"]
    ttl = "1h"
  }}
}}
"""

    def set_up(self, nomad: str, *arguments: str) -> str:
        """Runs nomad/vault/setup.sh as it is, for the Nomad at this address; what it said."""
        command = [str(REPOSITORY / "nomad/vault/setup.sh"), "--jwks", f"{nomad}/.well-known/jwks.json", *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def put(self, path: str, fields: dict[str, str]) -> None:
        """Secrets at a path of the store `secret`."""
        self.request("POST", f"secret/data/{path}", {"data": fields})

    def request(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        """A request below /v1/, with the root token or another."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Vault-Token": token or self.token}
        handlers: tuple[urllib.request.BaseHandler, ...] = ()
        if self.tls and self.ca.exists():
            handlers = (urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(self.ca))),)
        return request_json(method, f"{self.address}/v1/{path}", headers, data, handlers=handlers, seconds=10)

    def seal(self) -> None:
        """Seals it: it answers, and gives nothing."""
        self.request("PUT", "sys/seal")

    def stop(self) -> None:
        """It takes connections and answers nothing, as one does whose machine hangs."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The opposite."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def unseal(self) -> None:
        """The opposite."""
        key = re.search(r"Unseal Key: (\S+)", self.log())
        assert key
        self.request("PUT", "sys/unseal", {"key": key[1]})

    def log(self) -> str:
        """What it has said."""
        log = self.directory / "bao.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def _start(self, port: int) -> bool:
        self.address = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}"
        command = [
            str(program()), "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={self.token}",
            f"-dev-listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        if self.tls:
            command += ["-dev-tls", f"-dev-tls-cert-dir={self.directory}"]
        with (self.directory / "bao.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            try:
                if not self.request("GET", "sys/health")["sealed"]:
                    return True
            except (OSError, RuntimeError):
                pass
            time.sleep(0.05)
        return False

    def _stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
