#!/usr/bin/env python3
"""What nomad-build costs beside plain Buildah, as ratios measured side by side in one run: `make bench`.

- rebuilds in which nothing changed, warm, against `buildah build --layers` (goal: at most 1.3 times)
- all that is around Buildah, the sandbox among it: a build of a Containerfile with FROM alone, from the call to its end,
  without what plain Buildah takes for it (goal: at most 150 ms)
- a build of some twenty seconds of which nothing is known (goal: at most 1.05 times)
- eight different builds handed over at once, with as many slots as there are processors, which is the default, and with
  eight (goal: at least 0.85 of plain Buildah's throughput)

Both run as the same ordinary user, with the same Buildah and isolation. Needs `scripts/setup.sh test`
and the release build. TMPDIR names the file system: on ext4 without a journal each new file costs half a
millisecond where many were removed before (fs/ext4/ialloc.c, recently_deleted), which measures the disk.
Of FROM alone plain Buildah leaves a container, which a build here removes.
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
from rows import row  # noqa: E402

USER = "nomad-build-test"
NEWEST = Path("/usr/local/lib/nomad-build/tools/buildah-1.43.2/buildah")
ROUNDS = 9
AT_ONCE = 8
FINAL = ("succeeded", "failed", "cancelled", "timed_out", "lost")


class Bench:
    """Plain Buildah and a server, side by side."""

    def __init__(self, directory: Path, registry: LocalRegistry, buildah: Path, slots: int) -> None:
        self.directory = directory
        self.buildah = buildah
        version = subprocess.run([buildah, "--version"], check=True, capture_output=True, text=True).stdout.split()[2]
        self.name = f"Buildah {version}"
        self.base = f"{registry.host}/bench/base:1"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
        binary = Path(os.environ.get("NOMAD_BUILD_BIN", REPOSITORY / "target/release/nomad-build"))
        config = directory / "config.toml"
        config.write_text(
            f'state_dir = "{directory}/state"\nbuildah = "{buildah}"\n'
            f'[registry]\ninsecure = ["{registry.host}"]\n[local]\nslots = {slots}\n'
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

    def ours(self, *contexts: Path) -> list[dict[str, Any]]:
        """A `build` call for each directory, until all have ended; their last statuses."""
        statuses = []
        ids = [self.call("build", {"source": {"path": str(context)}})["build_id"] for context in contexts]
        for build_id in ids:
            while True:
                status = self.call("status", {"build_id": build_id, "wait": 45})["builds"][0]
                if status["state"] in FINAL:
                    break
            assert status["state"] == "succeeded", status
            statuses.append(status)
        return statuses

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


def side_by_side(
    what: str, name: str, first: Callable[[], None], second: Callable[[], None], rounds: int, most: float | None
) -> None:
    """Prints the medians of both, and the second as a multiple of the first, which has the name."""
    times = [(seconds(first), seconds(second)) for _ in range(rounds)]
    plain, ours = (statistics.median(column) for column in zip(*times, strict=True))
    row(what, f"{ours:.3f} s", f"{name}, {plain:.3f} s", ours / plain, most=most)


def rebuilds(bench: Bench) -> None:
    """What one build takes in which nothing changed."""
    projects = {"FROM alone": bench.context("empty", [], 0)}
    for count, files in ((6, 200), (18, 1000)):
        steps = [f"RUN echo step {number} > /step{number}" for number in range(count)]
        lines = [*steps[:3], "COPY src /src", *steps[3:]]
        projects[f"{count + 2} steps, {files} files"] = bench.context(f"project{count}", lines, files)
    for name, project in projects.items():
        bench.plain(project)
        bench.ours(project)
        # Of FROM alone a ratio says nothing: what is around Buildah costs the same whatever there is to build.
        most = None if name == "FROM alone" else 1.3
        side_by_side(f"nothing changed, {name}", bench.name, lambda: bench.plain(project), lambda: bench.ours(project), ROUNDS, most)
    empty = projects["FROM alone"]
    chains = []
    for _ in range(ROUNDS):
        plain = seconds(lambda: bench.plain(empty))
        chains.append(seconds(lambda: bench.ours(empty)) - plain)
    around = statistics.median(chains)
    row("all around Buildah in a build of FROM alone", f"{around * 1000:.0f} ms", f"150 ms ({bench.name})", around / 0.15, most=1)


def long_build(bench: Bench) -> None:
    """What a build takes that has work for some twenty seconds, nothing of it known."""
    work = "RUN i=0; while [ $i -lt 2400000 ]; do i=$((i+1)); done; echo {} > /done"

    def fresh(name: str) -> Path:
        return bench.context(name, [work.format(f"{name} {step}") for step in range(5)], 200)

    bench.ours(bench.context("warm-up", [], 0))
    plain, ours = (iter([fresh(f"long-{whose}{number}") for number in range(3)]) for whose in ("plain", "ours"))
    side_by_side("a long build", bench.name, lambda: bench.plain(next(plain)), lambda: bench.ours(next(ours)), 3, 1.05)


def throughput(bench: Bench, slots: int) -> None:
    """What many builds at once take."""
    work = "RUN i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo {} > /done"

    def fresh(round_: str) -> list[Path]:
        return [bench.context(f"{round_}-{n}", [work.format(f"{round_} {n}")], 20) for n in range(AT_ONCE)]

    # The first builds fetch the base image.
    warm = fresh("warm")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(bench.plain, warm[:1]))
        bench.ours(*warm)
        ratios = []
        for number in range(3):
            plain_contexts, our_contexts = fresh(f"plain{number}"), fresh(f"ours{number}")
            plain = seconds(lambda: list(pool.map(bench.plain, plain_contexts)))
            ours = seconds(lambda: bench.ours(*our_contexts))
            ratios.append((plain / ours, plain, ours))
    ratio, plain, ours = sorted(ratios)[1]
    what = f"{AT_ONCE} builds at once, {slots} slots: builds a second"
    row(what, f"{AT_ONCE / ours:.2f}", f"{bench.name}, {AT_ONCE / plain:.2f}", ratio, least=0.85)


def with_bench(buildah: Path, slots: int, measure: Callable[[Bench], None]) -> None:
    """Measures with stores that are empty before, and removes them."""
    directory = Path(tempfile.mkdtemp(prefix="nomad-build-bench-"))
    shutil.chown(directory, USER, USER)
    try:
        with LocalRegistry() as registry:
            reference = f"{registry.host}/bench/base:1"
            subprocess.run([REPOSITORY / "scripts/base-image.sh", reference, "--insecure"], check=True, capture_output=True)
            bench = Bench(directory, registry, buildah, slots)
            measure(bench)
            bench.server.close()
    finally:
        remove = [*as_user(), "env", f"HOME={directory}", "buildah", "unshare", "rm", "-rf", str(directory)]
        subprocess.run(remove, check=False, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    """Measures with both Buildahs."""
    found = shutil.which("buildah")
    assert found, "buildah is missing: scripts/setup.sh test"
    for buildah in (Path(found), NEWEST):
        processors = os.cpu_count() or 1
        with_bench(buildah, processors, rebuilds)
        with_bench(buildah, processors, long_build)
        for slots in (processors, AT_ONCE):
            with_bench(buildah, slots, lambda bench, slots=slots: throughput(bench, slots))


if __name__ == "__main__":
    pwd.getpwnam(USER)
    main()
