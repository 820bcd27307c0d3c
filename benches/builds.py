#!/usr/bin/env python3
"""What nomad-build costs beside plain Buildah, as ratios measured side by side in one run: `make bench`.

- a rebuild in which nothing changed, warm, against `buildah build --layers` (goal: at most 1.3 times)
- the whole chain around a command in the sandbox (goal: at most 200 ms)
- eight different builds at once (goal: at least 0.85 of plain Buildah's throughput)

Both run as the same ordinary user, with the same Buildah and isolation. Needs `scripts/setup.sh test`
and the release build.
"""

from __future__ import annotations

import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

from local_registry import LocalRegistry  # noqa: E402
from mcp_stdio import McpProcess  # noqa: E402

USER = "nomad-build-test"
NEWEST = Path("/usr/local/lib/nomad-build/tools/buildah-1.43.2/buildah")
ROUNDS = 9
AT_ONCE = 8
FINAL = ("succeeded", "failed", "cancelled", "timed_out", "lost")


class Bench:
    """Plain Buildah and a server, side by side."""

    def __init__(self, directory: Path, registry: LocalRegistry, buildah: Path) -> None:
        self.directory = directory
        self.buildah = buildah
        self.base = f"{registry.host}/bench/base:1"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
        binary = Path(os.environ.get("NOMAD_BUILD_BIN", REPOSITORY / "target/release/nomad-build"))
        config = directory / "config.toml"
        config.write_text(
            f'state_dir = "{directory}/state"\nbuildah = "{buildah}"\n'
            f'[registry]\ninsecure = ["{registry.host}"]\n[local]\nslots = {AT_ONCE}\n'
        )
        server = [*as_user(), str(binary), "serve"]
        self.server = McpProcess(server, self.env | {"NOMAD_BUILD_CONFIG": str(config)}, directory / "server.log")
        self.server.initialize()

    def plain(self, context: Path) -> None:
        """`buildah build --layers` in a store of its own."""
        command = [*as_user(), str(self.buildah), "--storage-driver=overlay", f"--root={self.directory}/plain"]
        command += [f"--runroot={self.directory}/run", "build", "--layers", "--isolation=rootless", "--runtime=runc"]
        command += ["--network=host", "--pull=missing", "--tls-verify=false", str(context)]
        subprocess.run(command, env=self.env, check=True, capture_output=True)

    def ours(self, *contexts: Path) -> None:
        """A `build` call for each directory, until all have ended."""
        ids = [self.call("build", {"source": {"path": str(context)}})["build_id"] for context in contexts]
        for build_id in ids:
            while True:
                status = self.call("status", {"build_id": build_id, "wait": 45})["builds"][0]
                if status["state"] in FINAL:
                    break
            assert status["state"] == "succeeded", status

    def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The structured answer of a call."""
        answer = self.server.call(tool, arguments)
        assert not answer.get("isError"), answer
        return answer["structuredContent"]

    def context(self, name: str, lines: list[str], files: int) -> Path:
        """A directory to build."""
        context = self.directory / name
        (context / "src").mkdir(parents=True)
        for number in range(files):
            (context / f"src/file{number}").write_text(f"{name} {number}\n" * 40)
        (context / "Containerfile").write_text("\n".join([f"FROM {self.base}", *lines]) + "\n")
        for path in (context, *context.rglob("*")):
            shutil.chown(path, USER, USER)
        return context


def as_user() -> list[str]:
    """The beginning of a command line that runs as the tests' ordinary user."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]


def seconds(work: Callable[[], None]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def side_by_side(what: str, first: Callable[[], None], second: Callable[[], None], rounds: int) -> None:
    """Prints the medians of both, and the second as a multiple of the first."""
    times = [(seconds(first), seconds(second)) for _ in range(rounds)]
    plain, ours = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{what}: Buildah {plain:.3f} s, nomad-build {ours:.3f} s, {ours / plain:.2f} times", flush=True)


def measure(bench: Bench) -> None:
    """Everything, with one Buildah."""
    steps = [f"RUN echo step {number} > /step{number}" for number in range(6)]
    project = bench.context("project", [*steps[:3], "COPY src /src", *steps[3:]], 200)
    empty = bench.context("empty", [], 0)
    for context in (project, empty):
        bench.plain(context)
        bench.ours(context)
    side_by_side("nothing changed, 8 steps", lambda: bench.plain(project), lambda: bench.ours(project), ROUNDS)
    side_by_side("FROM alone", lambda: bench.plain(empty), lambda: bench.ours(empty), ROUNDS)
    work = "RUN i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo {} > /done"

    def fresh(round_: str) -> list[Path]:
        return [bench.context(f"{round_}-{n}", [work.format(f"{round_} {n}")], 20) for n in range(AT_ONCE)]

    plain_contexts, our_contexts = fresh("plain"), fresh("ours")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        plain = seconds(lambda: list(pool.map(bench.plain, plain_contexts)))
    ours = seconds(lambda: bench.ours(*our_contexts))
    print(f"{AT_ONCE} at once: Buildah {plain:.1f} s, nomad-build {ours:.1f} s, {plain / ours:.2f} of its throughput")


def main() -> None:
    """Measures with both Buildahs."""
    found = shutil.which("buildah")
    assert found, "buildah is missing: scripts/setup.sh test"
    for buildah in (Path(found), NEWEST):
        version = subprocess.run([buildah, "--version"], check=True, capture_output=True, text=True).stdout.split()[2]
        print(f"Buildah {version}")
        directory = Path(tempfile.mkdtemp(prefix="nomad-build-bench-"))
        shutil.chown(directory, USER, USER)
        try:
            with LocalRegistry() as registry:
                reference = f"{registry.host}/bench/base:1"
                subprocess.run([REPOSITORY / "scripts/base-image.sh", reference, "--insecure"], check=True)
                bench = Bench(directory, registry, buildah)
                measure(bench)
                bench.server.close()
        finally:
            remove = [*as_user(), "env", f"HOME={directory}", "buildah", "unshare", "rm", "-rf", str(directory)]
            subprocess.run(remove, check=False, capture_output=True)
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    pwd.getpwnam(USER)
    main()
