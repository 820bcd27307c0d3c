"""Every attack of tests/attacks, in every sandbox that this host can have, and without one.

What each run has seen goes to `target/attacks/`, of which `scripts/security_table.py` makes the table in
`docs/security.md`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from attack_runs import Arena, Unprotected, breaches
from attacks import CATEGORIES, Attack, load_all
from bait import USER, Host
from conftest import _distribution_buildah, _newest_buildah
from local_registry import LocalRegistry
from server import REPOSITORY, Settings

ATTACKS = load_all()
BUILDAHS = ("distribution", "1.43.2")
SANDBOXES = [(buildah, isolation) for buildah in BUILDAHS for isolation in ("rootless", "chroot")]
LIMITS = {
    "log_mb": 1,
    "context_entries": 5000,
    "processes": 400,
    "memory_mb": 512,
    "disk_mb": 512,
    "files": 20000,
    "file_mb": 128,
}
RESULTS = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "attacks"


def _buildah(name: str) -> Path:
    return _newest_buildah() if name == "1.43.2" else _distribution_buildah()


def _version(buildah: Path) -> tuple[int, ...]:
    text = subprocess.run([str(buildah), "--version"], check=True, capture_output=True, text=True).stdout
    return _numbers(text.split()[2])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@pytest.fixture(scope="module")
def tool() -> Iterator[Path]:
    """The program of the attacks that a shell cannot make; whoever builds run as can start it."""
    with tempfile.TemporaryDirectory(prefix="nomad-build-tool-") as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "attack"
        source = REPOSITORY / "tests/tools/attack/attack.c"
        subprocess.run(["cc", "-O1", "-static", "-o", str(path), str(source)], check=True)
        yield path


@pytest.fixture(scope="module")
def attack_base(registry: LocalRegistry, tool: Path) -> str:
    """The image test/attack:1: busybox, and the program in it."""
    reference = f"{registry.host}/test/attack:1"
    command = [str(REPOSITORY / "scripts/base-image.sh"), reference, "--insecure", "--add", str(tool)]
    subprocess.run(command, check=True)
    return reference


@pytest.fixture(scope="module", params=SANDBOXES, ids="-".join)
def arena(request: pytest.FixtureRequest, registry: LocalRegistry, attack_base: str, tool: Path) -> Iterator[Arena]:
    """All attacks in one sandbox."""
    name, isolation = request.param
    settings = Settings(
        _buildah(name), [registry], isolation=isolation, allow=[f"{registry.host}/attacks/"], limits=LIMITS
    )

    def run(attacks: list[Attack], user: str | None) -> Arena:
        with Host(attacks, tool, attack_base, registry.host) as host:
            arena = Arena(attacks, host, replace(settings, user=user))
            arena.run()
            found = {attack.name: breaches(attack, host, registry, arena.evidence[attack.name]) for attack in attacks}
        arena.found = found
        return arena

    arena = run([attack for attack in ATTACKS if attack.category != "limits"], USER)
    # Started by root each build has an account and a cgroup of its own, in which the limits hold.
    limits = run([attack for attack in ATTACKS if attack.category == "limits"], None)
    arena.found |= limits.found
    arena.evidence |= limits.evidence
    arena.remains |= limits.remains
    arena.other_ended = arena.other_ended or limits.other_ended
    RESULTS.mkdir(parents=True, exist_ok=True)
    version = ".".join(map(str, _version(_buildah(name))))
    result = {"sandbox": f"{version} {isolation}", "found": arena.found}
    (RESULTS / f"{name}-{isolation}.json").write_text(json.dumps(result, indent=1))
    yield arena


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(arena: Arena, attack: Attack) -> None:
    found = arena.found[attack.name]
    assert not found, "\n".join([*found, *arena.evidence[attack.name].lines[-30:]])


def test_nothing_of_the_attacks_is_left(arena: Arena) -> None:
    assert not arena.remains


def test_another_build_does_not_notice(arena: Arena) -> None:
    assert not arena.other_ended


@pytest.fixture(scope="module")
def unprotected(
    request: pytest.FixtureRequest, registry: LocalRegistry, attack_base: str, tool: Path
) -> Iterator[Unprotected]:
    """All controls, with one Buildah."""
    attacks = [attack for name, attack in CONTROLS if name == request.param]
    with Host(attacks, tool, attack_base, registry.host) as host:
        run = Unprotected(attacks, host, _buildah(request.param))
        try:
            run.run()
            run.found = {attack.name: breaches(attack, host, registry, run.evidence[attack.name]) for attack in attacks}
            yield run
        finally:
            run.clean()


def _controls() -> Iterator[tuple[str, Attack]]:
    """What is shown with which Buildah; what needs none is shown once."""
    for name in BUILDAHS:
        version = _version(_buildah(name))
        for attack in ATTACKS:
            control = attack.control
            within = _numbers(control.since or "0") <= version < _numbers(control.fixed_in or "1000")
            again = control.way in ("host", "script") and name != BUILDAHS[0]
            if control.way and within and not again and (os.geteuid() == 0 or not control.root):
                yield name, attack


CONTROLS = list(_controls())


@pytest.mark.parametrize(
    ("unprotected", "attack"),
    CONTROLS,
    indirect=["unprotected"],
    scope="module",
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_without_a_sandbox_it_succeeds(unprotected: Unprotected, attack: Attack) -> None:
    lines = unprotected.evidence[attack.name].lines
    assert unprotected.found[attack.name], "\n".join(["the attack does not work:", *lines[-40:]])


def test_the_document_lists_these_attacks() -> None:
    """As scripts/security_table.py has written them, and every one of them held."""
    text = (REPOSITORY / "docs/security.md").read_text()
    rows = re.findall(r"^\| \[([^]]+)\]\(([^)]+)\): (.*?) \| .*? \|(.*)\|$", text, re.MULTILINE)
    assert [(name, title) for name, _, title, _ in rows] == [(attack.name, attack.title) for attack in ATTACKS]
    for name, path, _, cells in rows:
        assert (REPOSITORY / "docs" / path / "attack.toml").exists(), path
        assert {cell.strip() for cell in cells.split("|")} == {"held"}, f"{name}: {cells}"


def test_there_are_many_attacks_of_every_category() -> None:
    assert len(ATTACKS) >= 60
    assert {attack.category for attack in ATTACKS} == set(CATEGORIES)
