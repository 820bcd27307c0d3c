"""All attacks against one server, in one sandbox."""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from attack_evidence import Evidence
from attacks import Attack
from bait import Host, give
from helpers import UNFINISHED
from machine import leftovers, mounts_below, processes_left
from server import Server, Settings

# All of them at once: most wait for something that never comes.
_RUN_ALL = """\
mkdir /tmp/said
for directory in /attacks/*/; do
  (cd "$directory" && timeout 20 sh ./attack.sh >/tmp/said/$(basename "$directory") 2>&1 </dev/null) &
done
wait
cd /tmp/said
for name in *; do
  sed "s#^#$name: #" "$name"
  echo
done
echo crowd-ended
"""


def crowd_source(host: Host, attacks: list[Attack], name: str) -> Path:
    """A directory whose Containerfile runs all these attacks at once."""
    directory = host.directory / "allowed" / name
    (directory / "attacks").mkdir(parents=True)
    for attack in attacks:
        own = directory / "attacks" / attack.name
        own.mkdir()
        (own / "attack.sh").write_text((host.stage_of(attack) / "attack.sh").read_text())
    (directory / "attacks/run-all.sh").write_text(_RUN_ALL)
    text = f"FROM {host.words['BASE']}\nCOPY attacks /attacks\nRUN sh /attacks/run-all.sh\n"
    (directory / "Containerfile").write_text(text)
    give(directory)
    return directory


def lines_of(attack: Attack, lines: list[str]) -> list[str]:
    """What one of a crowd has printed."""
    assert "crowd-ended" in lines, lines[-20:]
    return [line for line in lines if line.startswith(f"{attack.name}: ")]


def request_of(host: Host, attack: Attack, step: int) -> dict[str, Any]:
    """The arguments of `build`: those of the kind, with the attack's own over them."""
    own = host.fill(attack, dict(attack.steps[step]))
    if "tool" in own:
        return own
    if attack.kind in ("containerfile", "test"):
        source: dict[str, Any] = {"path": str(host.stage_of(attack))}
    elif attack.kind in ("repository", "patch"):
        source = {"git": f"{host.git.url}/{attack.name}.git", "ref": "main"}
        if attack.kind == "patch":
            source["patch"] = (host.stage_of(attack) / "patch").read_text()
    else:
        text = f"FROM {host.words['BASE']}\n"
        source = {} if "source" in own else {"files": [{"path": "Containerfile", "text": text}]}
    source |= own.pop("source", {})
    return {"source": source, "timeout": 60, "wait": 0} | own


class _Careless(Server):
    """A server full of credentials, started by a shell that leaves things open."""

    def __init__(self, settings: Settings, host: Host) -> None:
        super().__init__(replace(settings, slots=4, paths=[host.words["ALLOWED"]], within=host.leaks))
        for name in ("attack-secret", "password"):
            file = self.directory / name
            file.touch(mode=0o600)
            file.write_text(host.password)
        more = {
            "secrets": {"secret": str(self.directory / "attack-secret")},
            "[git.credentials]": {
                "url": f"http://127.0.0.1:{host.words['PORT']}/team",
                "username": "me",
                "password_file": str(self.directory / "password"),
            },
        }
        with (self.directory / "config.toml").open("a") as config:
            for section, values in more.items():
                # JSON's strings, lists and numbers are TOML's.
                config.writelines([f"[{section}]\n", *(f"{key} = {json.dumps(one)}\n" for key, one in values.items())])
        if settings.user:
            give(self.directory)
        self.env = self.env | host.environment


class Arena:
    """Runs the attacks; afterwards there are `evidence`, and what they left in `remains`."""

    def __init__(self, attacks: list[Attack], host: Host, settings: Settings) -> None:
        self.evidence = {attack.name: Evidence() for attack in attacks}
        self.remains: set[str] = set()
        self.other_ended: str | None = None
        self.unenforced: list[str] = []
        """What the log says that this host does not enforce."""
        self._attacks = attacks
        self._host = host
        self._builds: dict[str, str] = {}
        self._server = _Careless(replace(settings, insecure=[*settings.insecure, host.private]), host)

    def run(self) -> None:
        """Runs them all, next to another build that must not notice."""
        host, state = self._host, self._server.state
        host.words |= {"STATE": str(state), "SERVER": str(self._server.directory)}
        try:
            with self._server.raw() as self._mcp:
                self._mcp.initialize()
                other = self._start_other()
                host.words["OTHER"] = str(state / f"b/{other}/work/src")
                # From here on no build can prove that it may have the image that the other one uses.
                host.private.__exit__(None, None, None)
                self._run_all()
                self.other_ended = self._end_other(other)
            self._look_for_remains([path.name for path in (state / "b").iterdir()])
            self.remains |= set(mounts_below(self._server.directory))
        finally:
            self._server.remove()

    def _run_all(self) -> None:
        host = self._host
        for attack in self._attacks:
            host.stage(attack)
        crowd = [attack for attack in self._attacks if attack.kind == "code"]
        single = [attack for attack in self._attacks if attack.kind != "code"]
        crowd_build = self._start_crowd(crowd) if crowd else ""
        for step in range(max(len(attack.steps) for attack in self._attacks)):
            self._run_step(step, [attack for attack in single if len(attack.steps) > step])
        if crowd:
            status, _ = self._wait(crowd_build)
            lines = self._log(crowd_build)
            for attack in crowd:
                self.evidence[attack.name] = Evidence(lines_of(attack, lines), status["state"])

    def _start_crowd(self, crowd: list[Attack]) -> str:
        tests = [{"name": "crowd", "command": "sh /attacks/run-all.sh"}]
        source = {"path": str(crowd_source(self._host, crowd, "crowd"))}
        return self._build({"source": source, "tests": tests, "timeout": 120})

    def _run_step(self, step: int, attacks: list[Attack]) -> None:
        begun = {}
        for attack in attacks:
            request = request_of(self._host, attack, step)
            started = time.monotonic()
            result = self._call(request.pop("tool", "build"), request)
            text = text_of(result)
            if result.get("isError"):
                seconds = time.monotonic() - started
                self.evidence[attack.name] = Evidence(text.splitlines(), "refused", {}, [text], seconds)
            else:
                begun[attack.name] = result["structuredContent"]["build_id"]
        self._builds |= {build: name for name, build in begun.items()}
        for attack in attacks:
            if build := begun.get(attack.name):
                status, answers = self._wait(build)
                assert step == len(attack.steps) - 1 or status["state"] == "succeeded", (attack.name, status)
                seconds = float(status.get("elapsed_seconds", 0))
                self.evidence[attack.name] = Evidence(self._log(build), status["state"], status, answers, seconds)

    def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return self._mcp.call(tool, arguments, timeout=90)

    def _build(self, request: dict[str, Any]) -> str:
        result = self._call("build", request)
        assert not result.get("isError"), text_of(result)
        return str(result["structuredContent"]["build_id"])

    def _wait(self, build: str) -> tuple[dict[str, Any], list[str]]:
        deadline = time.monotonic() + 600
        while True:
            result = self._call("status", {"build_id": build, "wait": 20})
            status = result["structuredContent"]["builds"][0]
            if status["state"] not in UNFINISHED:
                break
            assert time.monotonic() < deadline, f"not ended: {status}"
        logs = self._call("logs", {"build_id": build, "from": "end", "lines": 200})
        return status, [text_of(result), text_of(logs)]

    def _log(self, build: str) -> list[str]:
        """The whole log as it is stored: a record a line."""
        path = self._server.state / f"b/{build}/log.ndjson"
        records = [json.loads(line) for line in path.read_text(errors="replace").splitlines()]
        return [record["text"] for record in records if "text" in record]

    def _start_other(self) -> str:
        """Another build, with sources and a secret to read, a port to call and a process to end."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = self._host.words
        words["OTHER_PORT"] = str(port)
        source = {
            "Containerfile": f"FROM {words['PRIVATE']}\nCOPY canary /canary\nRUN httpd -f -p 127.0.0.1:{port}\n",
            "canary": f"{self._host.canary}\n",
        }
        files = [{"path": path, "text": text} for path, text in source.items()]
        build = self._build({"source": {"files": files}, "secrets": ["secret"], "name": "other"})
        deadline = time.monotonic() + 120
        while "RUN httpd" not in str(self._call("status", {"build_id": build, "wait": 0})["structuredContent"]):
            assert time.monotonic() < deadline, f"the other build does not begin: {self._log(build)}"
            time.sleep(0.1)
        return build

    def _end_other(self, build: str) -> str | None:
        status = self._call("status", {"build_id": build, "wait": 0})["structuredContent"]["builds"][0]
        self._call("kill", {"build_id": build, "reason": "the attacks are over", "wait": 30})
        self.unenforced = [line for line in self._log(build) if line.startswith("unenforced on this host: ")]
        return None if status["state"] == "running" else f"the other build {status['state']}: {status.get('failure')}"

    def _look_for_remains(self, builds: list[str]) -> None:
        state = self._server.state
        left = [process for build in builds for process in processes_left(build)]
        left += leftovers(state, *builds)
        for build in builds:
            left += [str(path) for path in (state / f"b/{build}").glob("work/*")]
        self.remains |= set(left)
        for build, attack in self._builds.items():
            # Containers of all builds may lie in one store.
            own = [f"BREACH left {one}" for one in left if re.search(rf"\b{build}\b", one)]
            self.evidence[attack].lines += own


def text_of(result: dict[str, Any]) -> str:
    """What a model sees of a result."""
    return "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
