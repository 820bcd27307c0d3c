"""A Consul of one's own on loopback, with access control, for the tests.

Runs the Consul that `scripts/setup.sh test` builds over a temporary directory, with ACLs that deny whatever no
policy allows. Needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from local_api import request_json
from local_registry import free_port

REPOSITORY = Path(__file__).resolve().parent.parent
VERSION = "1.19.2"
START_SECONDS = 60.0
POLICIES = REPOSITORY / "nomad/consul"


def program() -> Path:
    """The Consul to run: what scripts/setup.sh builds, or what NOMAD_BUILD_TEST_CONSUL names."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("NOMAD_BUILD_TEST_CONSUL", cache / f"nomad-build/tools/consul-{VERSION}/consul"))


class LocalConsul:
    """An agent in memory that runs while the `with` block does: server and client at once."""

    def __init__(self) -> None:
        self.address = ""
        self.token = ""
        """May do everything."""
        self.ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="nomad-build-consul-"))

    def __enter__(self) -> LocalConsul:
        try:
            # A port may be taken between the look and the start: then others.
            for _ in range(5):
                self.ports = [free_port() for _ in range(4)]
                if self._start():
                    return self
            raise RuntimeError(f"Consul does not start:\n{self.log()}")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """The agent is gone at once, and with it all that it knew."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """A new agent at the same address that knows nothing: its index begins anew."""
        self.kill()
        if not self._start():
            raise RuntimeError(f"Consul does not start again:\n{self.log()}")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The agent takes connections and answers nothing, as one does whose machine hangs."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """The end of the agent's log."""
        log = self.directory / "agent.log"
        return log.read_text(errors="replace")[-4000:] if log.exists() else ""

    def request(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        """A request with a token; without one, with that which may do everything. Bytes are sent as they are."""
        used = self.token if token is None else token
        headers = {"X-Consul-Token": used} if used else {}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return request_json(method, self.address + path, headers, data)

    def put(self, key: str, value: str | bytes) -> None:
        """Writes a key."""
        data = value.encode() if isinstance(value, str) else value
        assert self.request("PUT", f"/v1/kv/{urllib.parse.quote(key)}", data)

    def delete(self, key: str) -> None:
        """Removes a key."""
        self.request("DELETE", f"/v1/kv/{urllib.parse.quote(key)}")

    def apply(self, name: str, rules: str) -> None:
        """Makes a policy, or changes what it allows."""
        known = {one["Name"]: one["ID"] for one in self.request("GET", "/v1/acl/policies")}
        path = f"/v1/acl/policy/{known[name]}" if name in known else "/v1/acl/policy"
        self.request("PUT", path, {"Name": name, "Rules": rules})

    def token_of(self, policy: str, file: Path | None = None) -> str:
        """A new token with the rights of a policy: one applied before, or a file of nomad/consul."""
        if file:
            self.apply(policy, file.read_text())
        return str(self.request("PUT", "/v1/acl/token", {"Policies": [{"Name": policy}]})["SecretID"])

    def server_token(self) -> str:
        """A token with the rights of a server, by the policy of nomad/consul."""
        return self.token_of("nomad-build-server", POLICIES / "server.policy.hcl")

    def client_token(self) -> str:
        """A token with the rights of who looks for a server, by the policy of nomad/consul."""
        return self.token_of("nomad-build-client", POLICIES / "client.policy.hcl")

    def nomad_token(self) -> str:
        """A token with the rights of Nomad's agents, by the policy of nomad/consul."""
        return self.token_of("nomad-build-nomad", POLICIES / "nomad.policy.hcl")

    def agent(self, token: str) -> str:
        """What an agent of Nomad needs in its configuration."""
        return f"""
consul {{
  address        = "{self.address.removeprefix("http://")}"
  token          = "{token}"
  auto_advertise = false
}}
"""

    def _start(self) -> bool:
        http, dns, server, serf = self.ports
        self.address = f"http://127.0.0.1:{http}"
        config = self.directory / "agent.json"
        config.write_text(
            json.dumps(
                {
                    "bind_addr": "127.0.0.1",
                    "client_addr": "127.0.0.1",
                    "ports": {"http": http, "dns": dns, "server": server, "serf_lan": serf, "serf_wan": -1, "grpc": -1, "grpc_tls": -1},
                    "acl": {"enabled": True, "default_policy": "deny"},
                    "connect": {"enabled": False},
                    "disable_update_check": True,
                }
            )
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CONSUL_")}
        with (self.directory / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program(), "agent", "-dev", "-config-file", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self.token = ""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            with contextlib.suppress(OSError, RuntimeError):
                if not self.token:
                    self.token = str(self.request("PUT", "/v1/acl/bootstrap")["SecretID"])
                    # Without one of its own the agent may not tell the catalog what is not registered any more.
                    self.request("PUT", "/v1/agent/token/agent", {"Token": self.token})
                if self.request("GET", "/v1/catalog/nodes"):
                    return True
            time.sleep(0.05)
        return False
