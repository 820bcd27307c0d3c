#!/usr/bin/env python3
"""What a build costs that prints a gigabyte, with real Buildah: `make bench`.

- resident memory of the server, of the build's job and of its runner, while somebody follows (goal: at most 40 MB each)
- how fast it is printed, beside plain Buildah into a file
- from a line's being printed to the answer of the call that waits for it (goal: at most 100 ms)
"""

from __future__ import annotations

import pwd
import re
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from builds import FINAL, USER, Bench, seconds, with_bench  # noqa: E402
from rows import row  # noqa: E402

BYTES = 1_000_000_000
LINE = "[ 42%] cc -O2 -Wall -Iinclude -c src/module_1042.c -o build/obj/module_1042.o"


def processes(words: bytes) -> Iterator[Path]:
    """Processes with these words in their command line."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if words in (process / "cmdline").read_bytes().replace(b"\0", b" "):
                yield process
        except OSError:
            continue


def peak(process: Path) -> int:
    """Most resident memory of a process so far, in KiB."""
    try:
        found = re.search(r"VmHWM:\s*(\d+)", (process / "status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def memory(bench: Bench) -> None:
    """A build prints while somebody follows."""
    context = bench.context("loud", [f"RUN yes '{LINE}' | head -c {BYTES}"], 1)
    plain = seconds(lambda: bench.plain(context))
    begun = time.monotonic()
    build_id = bench.call("build", {"source": {"path": str(context)}, "no_cache": True})["build_id"]
    peaks = {"server": 0, "job": 0, "runner": 0}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            peaks["server"] = max(peaks["server"], peak(Path(f"/proc/{bench.server.process.pid}")))
            for name, words in (("job", f"runner job --dir {bench.directory}"), ("runner", f"runner build --plan {bench.directory}")):
                peaks[name] = max([peaks[name], *map(peak, processes(words.encode()))])

    watcher = threading.Thread(target=look)
    watcher.start()
    cursor, answers = "0", 0
    while True:
        answer = bench.call("logs", {"build_id": build_id, "from": "start", "cursor": cursor, "wait": 5, "lines": 2000})
        cursor, answers = answer.get("cursor", cursor), answers + 1
        if answers % 20 == 0 or answer["complete"]:
            status = bench.call("status", {"build_id": build_id, "wait": 0})["builds"][0]
            if status["state"] in FINAL:
                break
    took = time.monotonic() - begun
    done.set()
    watcher.join()
    assert status["state"] == "succeeded", status
    what = f"a build prints {BYTES / 1e6:.0f} MB"
    for name, kib in peaks.items():
        row(f"{what}: memory of the {name}", f"{kib * 1.024e-3:.0f} MB", "40 MB", kib * 1.024e-3 / 40, most=1)
    row(f"{what}: how long that takes", f"{took:.1f} s", f"{bench.name} into a file, {plain:.1f} s", took / plain)


def follow(bench: Bench) -> None:
    """Lines with the time, one after the other."""
    loop = "for i in $(seq 1 60); do echo now $(cut -d' ' -f1 /proc/uptime); usleep 100000; done"
    context = bench.context("clock", [f"RUN {loop}"], 1)
    build_id = bench.call("build", {"source": {"path": str(context)}, "no_cache": True})["build_id"]
    took: list[float] = []
    cursor = "0"
    while len(took) < 60:
        wanted = {"build_id": build_id, "from": "start", "cursor": cursor, "wait": 20, "grep": r"^now \d", "context_lines": 0}
        answer = bench.call("logs", wanted)
        heard = time.clock_gettime(time.CLOCK_BOOTTIME)
        took += [heard - float(said) for said in re.findall(r"now ([\d.]+)$", answer["text"], re.M)]
        cursor = answer.get("cursor", cursor)
    # The clock ticks in 10 ms.
    shown = f"{statistics.median(took) * 1000:.0f} ms, at most {max(took) * 1000:.0f} ms of {len(took)}"
    row("from a line's being printed to its follower", shown, "100 ms", max(took) / 0.1, most=1)


def main() -> None:
    """Measures with the distribution's Buildah."""
    found = shutil.which("buildah")
    assert found, "buildah is missing: scripts/setup.sh test"
    with_bench(Path(found), 2, follow)
    with_bench(Path(found), 2, memory)


if __name__ == "__main__":
    pwd.getpwnam(USER)
    main()
