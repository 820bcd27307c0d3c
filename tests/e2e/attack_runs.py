"""Runs the attacks: against the server in a sandbox (`Arena`), and where nothing stops them (`Unprotected`).

Both gather the same evidence, and `breaches` judges it: what a sandbox must not let happen has to be seen
in the control, or the attack could not fail.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from attacks import Attack
from bait import KEY, METADATA, Host, as_user, give
from helpers import UNFINISHED
from local_registry import LocalRegistry
from machine import leftovers, mounts_below, processes_with
from server import Server, Settings

# Where Buildah repeats the Containerfile: what it says there has not happened.
_ECHO = re.compile(r'^(\[\d+/\d+\] )?STEP \d+/\d+: .*|\bbuilding at STEP ".*?": ')
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


@dataclass
class Evidence:
    """What was seen of one attack in one run."""

    lines: list[str] = field(default_factory=list)
    """What it printed."""
    state: str = "unknown"
    """How its build ended; `refused` when there was none."""
    status: dict[str, Any] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    """What an agent was shown."""
    seconds: float = 0


def breaches(attack: Attack, host: Host, registry: LocalRegistry, seen: Evidence) -> list[str]:
    """What happened that must not happen."""
    wrong = attack.breach
    found = []
    told = [_ECHO.sub("", line) for line in seen.lines]
    for text in ("BREACH", host.canary, *host.fill(attack, wrong.log)):
        found += [f"printed {line[:200]}" for line in told if text.lower() in line.lower()][:3]
    found += [f"answered {host.canary}" for answer in seen.answers if host.canary in answer.lower()][:1]
    calls = host.service.calls.get(attack.name, [])
    if wrong.reached and calls:
        found.append("reached the host's service")
    found += ["sent a credential of the host" for headers in calls if _credential(headers, host)][:1]
    out = host.host / "out"
    found += [f"wrote {path}" for path in host.fill(attack, wrong.written) if os.path.lexists(out / path)]
    if wrong.victim and (lost := host.lost(attack)):
        found.append(lost)
    if wrong.survives:
        found += [f"still runs: {process}" for process in processes_with(host.markers[attack.name])]
    if seen.state in wrong.state:
        found.append(f"the build {seen.state}")
    if wrong.unless and seen.status.get("failure", {}).get("kind") not in wrong.unless:
        found.append(f"the build {seen.state}: {seen.status.get('failure', {}).get('kind')}")
    if wrong.log_bytes and sum(map(len, seen.lines)) > wrong.log_bytes:
        found.append(f"stored a log of {sum(map(len, seen.lines))} bytes")
    if wrong.line_bytes and max(map(len, seen.lines), default=0) > wrong.line_bytes:
        found.append(f"stored a line of {max(map(len, seen.lines))} bytes")
    own_words = json.dumps({k: v for k, v in seen.status.items() if k not in ("failure", "tests")})
    for text in host.fill(attack, wrong.claims):
        shown = [line for answer in seen.answers for line in answer.splitlines() if line.startswith(text)]
        if text in own_words or shown or (not seen.status and any(line.startswith(text) for line in seen.lines)):
            found.append(f"claims {text}")
    for text in wrong.raw:
        if any(text in answer for answer in seen.answers or told):
            found.append(f"passed on {text!r}")
    if wrong.published:
        repository, _, tag = host.fill(attack, wrong.published).rpartition(":")
        found += ["published the tag"] if registry.digest(repository, tag) else []
    if wrong.accepted and seen.state != "refused":
        found.append("accepted the request")
    if wrong.seconds and seen.seconds > wrong.seconds:
        found.append(f"took {seen.seconds:.0f} s")
    return found


def _credential(headers: str, host: Host) -> bool:
    for match in re.finditer(r"Basic (\S+)", headers):
        if any(word in base64.b64decode(match[1]).decode(errors="replace") for word in (host.canary, host.password)):
            return True
    return False


class _Fortress(Server):
    """A server of a careless operator: full of credentials, started by a shell that leaves things open."""

    def __init__(self, settings: Settings, host: Host) -> None:
        super().__init__(settings)
        config = self.directory / "config.toml"
        secret = self.directory / "attack-secret"
        secret.touch(mode=0o600)
        secret.write_text(host.password)
        password = self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(host.password)
        with config.open("a") as file:
            file.write(f'[local]\nslots = 4\npaths = ["{host.words["ALLOWED"]}"]\n')
            file.write(f'[secrets]\nsecret = "{secret}"\n')
            file.write(f'[[git.credentials]]\nurl = "http://127.0.0.1:{host.words["PORT"]}/team"\n')
            file.write(f'username = "me"\npassword_file = "{password}"\n')
        give(self.directory)
        self.env = self.env | environment(host)
        self._leaks = leaks(host)

    @property
    def command(self) -> list[str]:
        """The command line of the server."""
        return [*self._leaks, *super().command]


def leaks(host: Host) -> list[str]:
    """What starts a command that has a directory open and a key at hand."""
    return [str(host.tool), "with-leaks", str(host.host), KEY, host.canary]


def environment(host: Host) -> dict[str, str]:
    """What lies about in the environment of a server."""
    return {
        "HOME": str(host.host / "home"),
        "HTTP_PROXY": f"http://me:{host.canary}@proxy.invalid:3128",
        "NO_PROXY": ",".join(["127.0.0.1", "localhost", "::1", METADATA, host.words["ADDRESS"]]),
        "AWS_SECRET_ACCESS_KEY": host.canary,
    }


class Arena:
    """All attacks against one server; `evidence` and `remains` are there once it has been run."""

    def __init__(self, attacks: list[Attack], host: Host, settings: Settings) -> None:
        self.host = host
        self.evidence: dict[str, Evidence] = {}
        self.remains: set[str] = set()
        self.other_ended: str | None = None
        self._attacks = attacks
        self._builds: dict[str, str] = {}
        self._server = _Fortress(replace(settings, insecure=[*settings.insecure, host.private]), host)

    def run(self) -> None:
        """Runs them all; afterwards nothing of them may be left."""
        host = self.host
        state = self._server.state
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
            for build in [path.name for path in (state / "b").iterdir()]:
                left = leftovers(state, build) + processes_with(build)
                left += [str(path) for path in (state / f"b/{build}").glob("work/*")]
                self.remains |= set(left)
                if build in self._builds:
                    # Containers of all builds may lie in one store.
                    own = [f"BREACH left {one}" for one in left if build in one]
                    self.evidence[self._builds[build]].lines += own
            self.remains |= set(mounts_below(self._server.directory))
        finally:
            self._server.remove()

    def _run_all(self) -> None:
        host = self.host
        crowd = [attack for attack in self._attacks if attack.kind == "code"]
        single = [attack for attack in self._attacks if attack.kind != "code"]
        for attack in self._attacks:
            host.stage(attack)
            self.evidence[attack.name] = Evidence()
        source = crowd_source(host, crowd, host.directory / "allowed/crowd")
        request = {
            "source": {"path": str(source)},
            "tests": [{"name": "crowd", "command": "sh /attacks/run-all.sh"}],
            "timeout": 120,
        }
        crowd_id = self._build(request)["build_id"]
        for step in range(max(len(attack.steps) for attack in self._attacks)):
            self._run_step(step, [attack for attack in single if len(attack.steps) > step])
        status, answers = self._wait(crowd_id)
        lines = self._log(crowd_id)
        assert any(line.startswith("crowd-ended") for line in lines), (status, lines[-20:])
        for attack in crowd:
            own = [line for line in lines if line.startswith(f"{attack.name}: ")]
            self.evidence[attack.name] = Evidence(own, status["state"], {}, [])

    def _run_step(self, step: int, attacks: list[Attack]) -> None:
        begun: dict[str, tuple[str, float]] = {}
        for attack in attacks:
            started = time.monotonic()
            request = request_of(self.host, attack, step)
            result = self._call(request.pop("tool", "build"), request)
            text = text_of(result)
            if result.get("isError"):
                self.evidence[attack.name] = Evidence(text.splitlines(), "refused", {}, [text], time.monotonic() - started)
            else:
                build = result["structuredContent"]["build_id"]
                self._builds[build] = attack.name
                begun[attack.name] = (build, started)
        for attack in attacks:
            if attack.name in begun:
                build, started = begun[attack.name]
                status, answers = self._wait(build)
                assert step == len(attack.steps) - 1 or status["state"] == "succeeded", (attack.name, status)
                took = float(status.get("elapsed_seconds", 0))
                self.evidence[attack.name] = Evidence(self._log(build), status["state"], status, answers, took)

    def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return self._mcp.call(tool, arguments, timeout=90)

    def _build(self, request: dict[str, Any]) -> dict[str, Any]:
        result = self._call("build", request)
        assert not result.get("isError"), text_of(result)
        return result["structuredContent"]

    def _wait(self, build: str) -> tuple[dict[str, Any], list[str]]:
        deadline = time.monotonic() + 300
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
        """Another build of the same user, with something to read and a process to end."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.host.words["OTHER_PORT"] = str(port)
        serve = f"httpd -f -p 127.0.0.1:{port}"
        source = {
            "Containerfile": f"FROM {self.host.words['PRIVATE']}\nCOPY canary /canary\nRUN {serve}\n",
            "canary": f"{self.host.canary}\n",
        }
        files = [{"path": path, "text": text} for path, text in source.items()]
        build = self._build({"source": {"files": files}, "secrets": ["secret"], "name": "other"})["build_id"]
        deadline = time.monotonic() + 60
        while "RUN httpd" not in str(self._call("status", {"build_id": build, "wait": 0})["structuredContent"]):
            assert time.monotonic() < deadline, "the other build does not begin"
            time.sleep(0.1)
        return build

    def _end_other(self, build: str) -> str | None:
        status = self._call("status", {"build_id": build, "wait": 0})["structuredContent"]["builds"][0]
        self._call("kill", {"build_id": build, "reason": "the attacks are over", "wait": 30})
        return None if status["state"] == "running" else f"the other build {status['state']}: {status.get('failure')}"


def text_of(result: dict[str, Any]) -> str:
    """What a model sees of a result."""
    return "\n".join(block["text"] for block in result["content"] if block["type"] == "text")


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


def crowd_source(host: Host, attacks: list[Attack], directory: Path) -> Path:
    """A directory whose Containerfile runs all these attacks at once."""
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


class Unprotected:
    """The same attacks against plain Buildah, git and shell, as the same user; one after the other way."""

    def __init__(self, attacks: list[Attack], host: Host, buildah: Path) -> None:
        self.evidence: dict[str, Evidence] = {}
        self._attacks = attacks
        self._host = host
        self._buildah = buildah

    def run(self) -> None:
        """Runs them all."""
        host = self._host
        store = host.directory / "store"
        for name in ("root", "run", "tmp"):
            (store / name).mkdir()
        give(store)
        crowds: dict[tuple[str, ...], list[Attack]] = {}
        single = []
        for attack in self._attacks:
            host.stage(attack)
            if attack.kind == "code" and attack.control.way == "buildah":
                crowds.setdefault(attack.control.options, []).append(attack)
            else:
                single.append(attack)
        # The first fetches the base image for all.
        self._plain("pull", "--tls-verify=false", host.words["BASE"])
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(self._crowd, number, *item) for number, item in enumerate(crowds.items())]
            waiting += [pool.submit(self._one, attack) for attack in single]
            for one in waiting:
                one.result()

    def clean(self) -> None:
        """Ends what was left running on purpose."""
        for attack in self._attacks:
            for process in processes_with(self._host.markers[attack.name]):
                with_pid = int(process.split(":")[0])
                if attack.breach.survives:
                    os.kill(with_pid, signal.SIGKILL)

    def _command(self, *words: str) -> list[str]:
        store = self._host.directory / "store"
        return [
            str(self._buildah),
            *("--storage-driver", "overlay", "--root", str(store / "root"), "--runroot", str(store / "run")),
            *words,
        ]

    def _environment(self) -> dict[str, str]:
        store = self._host.directory / "store"
        # For scripts: Buildah with its options.
        buildah = " ".join(self._command())
        path = {
            "PATH": f"{os.environ['PATH']}:{self._host.tool.parent}",
            "BUILDAH": buildah,
            "TMPDIR": str(store / "tmp"),
            "XDG_RUNTIME_DIR": str(store / "run"),
        }
        return path | environment(self._host) | {"HOME": str(store)}

    def _run(self, command: list[str], cwd: Path, root: bool = False) -> tuple[int, list[str]]:
        done = subprocess.run(
            [*leaks(self._host), *(command if root else as_user(command))],
            cwd=cwd,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        return done.returncode, done.stdout.decode(errors="replace").splitlines()

    def _plain(self, *words: str) -> list[str]:
        code, lines = self._run(self._command(*words), self._host.directory)
        assert code == 0, lines
        return lines

    def _build(self, source: Path, options: tuple[str, ...], *more: str) -> tuple[int, list[str]]:
        fixed = ("--isolation", "chroot", "--network", "host", "--tls-verify=false")
        return self._run(self._command("build", *fixed, *options, *more, str(source)), self._host.directory)

    def _crowd(self, number: int, options: tuple[str, ...], attacks: list[Attack]) -> None:
        host = self._host
        source = crowd_source(host, attacks, host.directory / f"allowed/crowd-{number}")
        options = tuple(host.fill(attacks[0], options))
        code, lines = self._build(source, options)
        assert any(line.startswith("crowd-ended") for line in lines), lines[-20:]
        for attack in attacks:
            own = [line for line in lines if line.startswith(f"{attack.name}: ")]
            self.evidence[attack.name] = Evidence(own, _state(code))

    def _one(self, attack: Attack) -> None:
        host, control = self._host, attack.control
        stage = host.stage_of(attack)
        options = tuple(host.fill(attack, control.options))
        begun = time.monotonic()
        code, lines = 0, []
        if control.way in ("host", "script"):
            script = "attack.sh" if control.way == "host" else "control.sh"
            code, lines = self._run(["sh", "-u", str(stage / script)], stage, control.root)
        elif control.way == "buildah":
            for step in range(len(attack.steps)):
                source = request_of(host, attack, step)["source"]["path"]
                code, lines = self._build(Path(source), options)
        else:
            code, lines = self._tests(attack, stage, options)
        self.evidence[attack.name] = Evidence(lines, _state(code), seconds=time.monotonic() - begun)

    def _tests(self, attack: Attack, stage: Path, options: tuple[str, ...]) -> tuple[int, list[str]]:
        image = f"localhost/{attack.name}:1"
        code, lines = self._build(stage, (), "--tag", image)
        for test in request_of(self._host, attack, 0).get("tests", []):
            if code == 0:
                container = self._plain("from", image)[-1]
                argv = test.get("argv") or ["/bin/sh", "-c", test["command"]]
                isolation = () if "--isolation" in options else ("--isolation", "chroot")
                command = self._command("run", "--network", "host", *isolation, *options, container, "--", *argv)
                code, more = self._run(command, self._host.directory)
                lines += more
        return code, lines


def _state(code: int) -> str:
    return "succeeded" if code == 0 else "failed"

