"""The same attacks where nothing stops them: plain Buildah, git and shell, as an ordinary user."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arena import crowd_source, lines_of, request_of
from attack_evidence import Evidence
from attacks import Attack
from bait import Host, as_user, give
from machine import processes_with


def _is_of_a_crowd(attack: Attack) -> bool:
    """Whether it is shown together with others, in one build."""
    return attack.kind == "code" and attack.control.way == "buildah"


class Unprotected:
    """Runs the controls of attacks; afterwards there is `evidence`."""

    def __init__(self, attacks: list[Attack], host: Host, buildah: Path) -> None:
        self.evidence: dict[str, Evidence] = {}
        self._attacks = attacks
        self._host = host
        self._buildah = buildah
        self._store = host.directory / "store"

    def run(self) -> None:
        """Runs them all."""
        host = self._host
        for name in ("root", "run", "tmp"):
            (self._store / name).mkdir()
        give(self._store)
        crowds: dict[tuple[str, ...], list[Attack]] = {}
        single = []
        for attack in self._attacks:
            host.stage(attack)
            if _is_of_a_crowd(attack):
                crowds.setdefault(attack.control.options, []).append(attack)
            else:
                single.append(attack)
        # The first fetches the base image for all.
        self._plain("pull", "--tls-verify=false", host.words["BASE"])
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(self._crowd, f"crowd-{number}", *item) for number, item in enumerate(crowds.items())]
            waiting += [pool.submit(self._one, attack) for attack in single]
            for one in waiting:
                one.result()

    def again(self, attack: Attack) -> Evidence:
        """Runs one of them once more, alone: Buildah 1.28 now and then loses what a RUN prints (chroot isolation)."""
        if _is_of_a_crowd(attack):
            self._crowd(f"{attack.name}-alone", attack.control.options, [attack])
        else:
            self._one(attack)
        return self.evidence[attack.name]

    def clean(self) -> None:
        """Ends what was left running on purpose."""
        for attack in self._attacks:
            if attack.breach.survives:
                for process in processes_with(self._host.markers[attack.name]):
                    os.kill(int(process.split(":")[0]), signal.SIGKILL)

    def _command(self, *words: str) -> list[str]:
        places = ("--root", str(self._store / "root"), "--runroot", str(self._store / "run"))
        return [str(self._buildah), "--storage-driver", "overlay", *places, *words]

    def _run(self, command: list[str], cwd: Path, root: bool = False) -> tuple[int, list[str]]:
        environment = self._host.environment | {
            "PATH": f"{os.environ['PATH']}:{self._host.tool.parent}",
            "HOME": str(self._store),
            "TMPDIR": str(self._store / "tmp"),
            "XDG_RUNTIME_DIR": str(self._store / "run"),
            # For scripts: Buildah with its options.
            "BUILDAH": " ".join(self._command()),
        }
        process = subprocess.Popen(
            [*self._host.leaks, *(command if root else as_user(command))],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, output.decode(errors="replace").splitlines()

    def _plain(self, *words: str) -> list[str]:
        code, lines = self._run(self._command(*words), self._host.directory)
        assert code == 0, lines
        return lines

    def _build(self, source: Path, *options: str) -> tuple[int, list[str]]:
        fixed = ("--isolation", "chroot", "--network", "host", "--tls-verify=false")
        return self._run(self._command("build", *fixed, *options, str(source)), self._host.directory)

    def _crowd(self, name: str, options: tuple[str, ...], attacks: list[Attack]) -> None:
        source = crowd_source(self._host, attacks, name)
        code, lines = self._build(source, *self._host.fill(attacks[0], options))
        for attack in attacks:
            self.evidence[attack.name] = Evidence(lines_of(attack, lines), _state(code))

    def _one(self, attack: Attack) -> None:
        host, control = self._host, attack.control
        stage = host.stage_of(attack)
        options = host.fill(attack, control.options)
        begun = time.monotonic()
        code, lines = 0, []
        if control.way in ("host", "script"):
            script = "attack.sh" if control.way == "host" else "control.sh"
            code, lines = self._run(["sh", "-u", str(stage / script)], stage, control.root)
        elif control.way == "buildah":
            for step in range(len(attack.steps)):
                source = request_of(host, attack, step)["source"]["path"]
                code, lines = self._build(Path(source), *options)
        else:
            code, lines = self._tests(attack, stage, options)
        self.evidence[attack.name] = Evidence(lines, _state(code), seconds=time.monotonic() - begun)

    def _tests(self, attack: Attack, stage: Path, options: list[str]) -> tuple[int, list[str]]:
        image = f"localhost/{attack.name}:1"
        code, lines = self._build(stage, "--tag", image)
        for test in request_of(self._host, attack, 0)["tests"]:
            if code == 0:
                container = self._plain("from", image)[-1]
                isolation = () if "--isolation" in options else ("--isolation", "chroot")
                fixed = ("run", "--network", "host", *isolation, *options)
                command = self._command(*fixed, container, "--", "/bin/sh", "-c", test["command"])
                code, more = self._run(command, self._host.directory)
                lines += more
        return code, lines


def _state(code: int) -> str:
    return "succeeded" if code == 0 else "failed"
