"""The public conformance suite of MCP: against the server, with what it does not declare as a baseline, and
against a fixture on the same HTTP stack that has all that the suite asks for."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import distribution_buildah
from server import REPOSITORY, TARGET, Server, Settings, listening, serve
from test_clients import installed

SECONDS = 240

ALL_OF = "--suite all --spec-version"
REQUIRED_BY = "--requirements"
"""And what may come with that version: tasks."""


def fixture() -> Path:
    """The fixture: NOMAD_BUILD_FIXTURE_BIN, or what `cargo test` has compiled."""
    compiled = TARGET / "debug/examples/conformance_fixture"
    found = Path(os.environ.get("NOMAD_BUILD_FIXTURE_BIN", compiled)).absolute()
    assert found.exists(), f"{found} is missing: cargo build --example conformance_fixture"
    return found


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    server = Server(Settings(distribution_buildah()))
    with (
        serve(server, "--no-auth") as plain,
        serve(server, "--no-auth", name="sessions", NOMAD_BUILD_HTTP_SESSIONS="true") as sessions,
    ):
        yield {"stateless": plain, "sessions": sessions}
    server.remove()


def conformance(address: str, directory: Path, *options: str) -> tuple[int, int]:
    """Runs the suite; how many checks have passed and failed. Fails where the suite says that the server has."""
    suite = installed("node-clients/node_modules/@modelcontextprotocol/conformance/dist/index.js")
    command = [str(installed("node-clients/node")), str(suite), "server", "--url", f"{address}/mcp", *options]
    command += ["--output-dir", str(directory)]
    env = os.environ | dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, cwd=directory)
    assert done.returncode == 0, done.stdout[-6000:]
    total = re.search(r"Total: (\d+) passed, (\d+) failed", done.stdout)
    assert total, done.stdout[-2000:]
    return int(total[1]), int(total[2])


@pytest.mark.parametrize("mode", ["stateless", "sessions"])
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_what_it_declares_conforms(addresses: dict[str, str], tmp_path: Path, version: str, mode: str) -> None:
    # What only one of the two ways to serve lacks, stands in a file of its own.
    parts = [REPOSITORY / f"tests/clients/conformance-{version}{kind}.yml" for kind in ("", f"-{mode}")]
    baseline = tmp_path / "baseline.yml"
    baseline.write_text("".join(part.read_text() for part in parts if part.exists()))
    passed, _ = conformance(addresses[mode], tmp_path, *ALL_OF.split(), version, "--expected-failures", str(baseline))
    assert passed >= 35


@pytest.mark.parametrize(
    ("mode", "options", "checks"),
    [
        # In that version servers ask their clients in the middle of a call, which takes sessions.
        ("sessions", f"{ALL_OF} 2025-11-25", 83),
        ("sessions", f"{ALL_OF} 2026-07-28", 153),
        ("sessions", f"{REQUIRED_BY} 2026-07-28", 197),
        ("streams", f"{ALL_OF} 2026-07-28", 153),
        ("streams", f"{REQUIRED_BY} 2026-07-28", 197),
        # One check is of answers that are streams.
        ("plain", f"{ALL_OF} 2026-07-28", 152),
        ("plain", f"{REQUIRED_BY} 2026-07-28", 196),
    ],
)
def test_the_http_stack_conforms(tmp_path: Path, mode: str, options: str, checks: int) -> None:
    with listening([str(fixture()), mode], tmp_path / "fixture.log", dict(os.environ)) as address:
        assert conformance(address, tmp_path, *options.split()) == (checks, 0)


def test_each_exception_has_its_reason() -> None:
    for baseline in (REPOSITORY / "tests/clients").glob("conformance-*.yml"):
        lines = baseline.read_text().splitlines()
        for number, line in enumerate(lines):
            if line.startswith("  - "):
                assert lines[number - 1].startswith("  # "), f"{baseline.name}: {line}"
