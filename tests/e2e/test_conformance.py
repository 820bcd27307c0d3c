"""The public conformance suite of MCP against the server, with what it does not declare as a baseline."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import distribution_buildah
from server import REPOSITORY, Server, Settings, serve
from test_clients import installed

SECONDS = 240


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    server = Server(Settings(distribution_buildah()))
    with (
        serve(server, "--no-auth") as plain,
        serve(server, "--no-auth", name="sessions", NOMAD_BUILD_HTTP_SESSIONS="true") as sessions,
    ):
        yield {"stateless": plain, "sessions": sessions}
    server.remove()


@pytest.mark.parametrize("mode", ["stateless", "sessions"])
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_what_it_declares_conforms(addresses: dict[str, str], tmp_path: Path, version: str, mode: str) -> None:
    # What only one of the two ways to serve lacks, stands in a file of its own.
    parts = [REPOSITORY / f"tests/clients/conformance-{version}{kind}.yml" for kind in ("", f"-{mode}")]
    baseline = tmp_path / "baseline.yml"
    baseline.write_text("".join(part.read_text() for part in parts if part.exists()))
    suite = installed("node-clients/node_modules/@modelcontextprotocol/conformance/dist/index.js")
    command = [
        str(installed("node-clients/node")), str(suite), "server", "--url", f"{addresses[mode]}/mcp", "--suite", "all",
        "--spec-version", version, "--expected-failures", str(baseline), "--output-dir", str(tmp_path),
    ]  # fmt: skip
    env = os.environ | dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    passed = re.search(r"Total: (\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 35, done.stdout[-2000:]


def test_each_exception_has_its_reason() -> None:
    for baseline in (REPOSITORY / "tests/clients").glob("conformance-*.yml"):
        lines = baseline.read_text().splitlines()
        for number, line in enumerate(lines):
            if line.startswith("  - "):
                assert lines[number - 1].startswith("  # "), f"{baseline.name}: {line}"
