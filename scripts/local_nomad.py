"""A Nomad of one's own on loopback, with access control, for the demo and the tests.

Runs the Nomad that `scripts/setup.sh test` builds over a temporary directory, and sets it up as
nomad/README.md tells operators to. Needs nothing but the standard library.
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
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from local_api import request_json
from local_registry import free_port

REPOSITORY = Path(__file__).resolve().parent.parent
VERSION = "1.11.3"
START_SECONDS = 90.0
NAMESPACE = "builds"
TASKS = ("build", "publish", "archive")


def program() -> Path:
    """The Nomad to run: what scripts/setup.sh builds, or what NOMAD_BUILD_TEST_NOMAD names."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("NOMAD_BUILD_TEST_NOMAD", cache / f"nomad-build/tools/nomad-{VERSION}/nomad"))


def _answers(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError), opener.open(f"{address}/healthz", timeout=5):
        return True
    return False


class LocalNomad:
    """An agent that runs while the `with` block does: server and client at once.

    Args:
        memory_mb: memory of the one node; None: what the machine has.
        more: more for its configuration, in HCL.
    """

    def __init__(self, memory_mb: int | None = None, more: str = "") -> None:
        self.address = ""
        self.token = ""
        self._memory_mb = memory_mb
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="nomad-build-nomad-"))
        # Tasks run as other users, who must be able to pass.
        self.directory.chmod(0o711)
        self.data = self.directory / "data"

    def __enter__(self) -> LocalNomad:
        try:
            # A port may be taken between the look and the start: then others.
            for _ in range(5):
                if self._start():
                    return self
            raise RuntimeError(f"Nomad does not start:\n{self.log()}")
        except BaseException:
            self._stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

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

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """A request with the token that may do everything."""
        headers = {"X-Nomad-Token": self.token} if self.token else {}
        data = None if body is None else json.dumps(body).encode()
        return request_json(method, self.address + path, headers, data)

    def run(self, *arguments: str, **variables: str) -> str:
        """The command line `nomad` with the token that may do everything; HCL variables by their names."""
        command = [str(program()), *arguments]
        environment = os.environ | {
            "NOMAD_ADDR": self.address,
            "NOMAD_TOKEN": self.token,
            **{f"NOMAD_VAR_{name}": value for name, value in variables.items()},
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def set_up(self, job_file: Path, profile: str = "default", **variables: str) -> None:
        """Namespace, policies and the job of one profile, by the very commands of nomad/README.md."""
        self.run("namespace", "apply", NAMESPACE)
        policies = REPOSITORY / "nomad/policies"
        self.run("acl", "policy", "apply", "nomad-build-server", str(self.server_rules()))
        for task in TASKS:
            self.run(
                "acl", "policy", "apply", "-namespace", NAMESPACE, "-job", f"nomad-build-{profile}",
                "-group", "build", "-task", task,
                f"nomad-build-{profile}-{task}", str(policies / f"{task}.policy.hcl"),
            )  # fmt: skip
        self.run("job", "run", str(job_file), profile=profile, namespace=NAMESPACE, **variables)

    def set_up_server(self, job_file: Path, name: str, tokens: str, **variables: str) -> str:
        """The server's rights, the tokens of its callers and its job, as nomad/README.md has them; returns its address.

        Args:
            name: the job's, and the service's.
            tokens: lines of `nomad-build token NAME --print`.

        One that is registered in Consul is to be looked for there.
        """
        self.run(
            "acl", "policy", "apply", "-namespace", "default", "-job", name,
            f"{name}-server", str(self.server_rules()),
        )  # fmt: skip
        file = self.directory / "tokens"
        file.write_text(tokens)
        self.run("var", "put", "-namespace", "default", "-force", f"nomad/jobs/{name}", f"tokens=@{file}")
        self.run("job", "run", "-detach", str(job_file), name=name, builds_namespace=NAMESPACE, **variables)
        return self.service(name) if variables.get("provider", "nomad") == "nomad" else ""

    def service(self, name: str, seconds: float = 60) -> str:
        """Where a service of the namespace `default` answers, once its checks pass."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for one in self.request("GET", f"/v1/service/{name}?namespace=default"):
                checks = self.request("GET", f"/v1/client/allocation/{one['AllocID']}/checks?namespace=default")
                address = f"http://{one['Address']}:{one['Port']}"
                # Checks are made now and then: one that has just ended passes for a while.
                if checks and all(check["Status"] == "success" for check in checks.values()) and _answers(address):
                    return address
            time.sleep(0.1)
        states = self.run("job", "status", "-namespace", "default", name)
        raise RuntimeError(f"the service {name} does not answer:\n{states}\n{self.log()}")

    @staticmethod
    def server_rules() -> Path:
        """The policy of a server: before 1.11.2 another one, because a right had not its name."""
        said = subprocess.run([program(), "version"], check=True, capture_output=True, text=True).stdout
        version = said.split()[1].lstrip("v").split(".")
        old = [int(part.split("-")[0]) for part in version] < [1, 11, 2]
        return REPOSITORY / "nomad/policies" / ("server-before-1.11.2.policy.hcl" if old else "server.policy.hcl")

    def server_token(self) -> str:
        """A token with the rights of a server."""
        answer = self.request(
            "POST", "/v1/acl/token", {"Name": "server", "Type": "client", "Policies": ["nomad-build-server"]}
        )
        return str(answer["SecretID"])

    def environment(self) -> dict[str, str]:
        """What a server needs to find this cluster."""
        return {"NOMAD_ADDR": self.address, "NOMAD_TOKEN": self.server_token(), "NOMAD_NAMESPACE": NAMESPACE}

    def _start(self) -> bool:
        ports = [free_port() for _ in range(3)]
        self.address = f"http://127.0.0.1:{ports[0]}"
        self.data.mkdir(mode=0o711, exist_ok=True)
        memory = f"memory_total_mb = {self._memory_mb}" if self._memory_mb else ""
        config = self.directory / "agent.hcl"
        config.write_text(f"""
data_dir = "{self.data}"
bind_addr = "127.0.0.1"
ports {{
  http = {ports[0]}
  rpc  = {ports[1]}
  serf = {ports[2]}
}}
plugin "raw_exec" {{
  config {{
    enabled = true
  }}
}}
acl {{
  enabled = true
}}
client {{
  {memory}
  options = {{
    # These look for a cloud, for seconds each.
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
}}
{self._more}
""")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NOMAD_")}
        with (self.directory / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program(), "agent", "-dev", "-config", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            with contextlib.suppress(OSError, RuntimeError):
                if not self.token:
                    self.token = str(self.request("POST", "/v1/acl/bootstrap")["SecretID"])
                nodes = self.request("GET", "/v1/nodes")
                if nodes and nodes[0]["Status"] == "ready":
                    # Nomad makes it 0700 at its start: see nomad/README.md.
                    self.data.chmod(0o711)
                    return True
            time.sleep(0.05)
        return False

    def _stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + 20
        while self._sweep() and time.monotonic() < deadline:
            time.sleep(0.05)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            mount = line.split(" ")[4]
            if mount.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _sweep(self) -> bool:
        """Kills whatever has something of this agent in its arguments, its environment or open."""
        mark = str(self.directory).encode()
        found = False
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                words = [(process / name).read_bytes() for name in ("cmdline", "environ")]
                # What collects logs is known by them alone.
                if words[0].startswith(bytes(program())):
                    words += [os.readlink(file).encode() for file in (process / "fd").iterdir()]
                if any(mark in one for one in words):
                    os.kill(int(process.name), signal.SIGKILL)
                    found = True
        return found
