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
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from arena import Arena
from attack_evidence import Evidence, breaches
from attacks import CATEGORIES, Attack, load_all
from bait import USER, Host
from conftest import distribution_buildah, newest_buildah
from local_registry import LocalRegistry
from machine import limits_enforced
from server import REPOSITORY, Settings
from unprotected import Unprotected

ATTACKS = load_all()
ROOT = os.geteuid() == 0
BUILDAHS = ("distribution", "1.43.2")
# Each Buildah and each isolation once; the other two pairs belong to `make test-all` and `make attacks`.
SANDBOXES = [
    pytest.param(("distribution", "rootless"), id="distribution-rootless"),
    pytest.param(("distribution", "chroot"), id="distribution-chroot", marks=pytest.mark.matrix),
    pytest.param(("1.43.2", "rootless"), id="1.43.2-rootless", marks=pytest.mark.matrix),
    pytest.param(("1.43.2", "chroot"), id="1.43.2-chroot"),
]
LIMITS = {
    "log_mb": 1,
    "context_entries": 5000,
    "processes": 1000,
    "memory_mb": 512,
    "disk_mb": 256,
    "files": 6000,
    "file_mb": 64,
}
RESULTS = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "attacks"


@dataclass
class Run:
    """What became of the attacks, by their names."""

    found: dict[str, list[str]] = field(default_factory=dict)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    remains: set[str] = field(default_factory=set)
    other_ended: list[str] = field(default_factory=list)
    unenforced: list[str] = field(default_factory=list)

    def is_unenforced(self, attack: Attack) -> bool:
        """Whether the log has said that this host cannot do what stops it."""
        return bool(attack.needs) and any(str(attack.needs) in line for line in self.unenforced)


def _buildah(name: str) -> Path:
    return newest_buildah() if name == "1.43.2" else distribution_buildah()


def _version(name: str) -> str:
    text = subprocess.run([str(_buildah(name)), "--version"], check=True, capture_output=True, text=True).stdout
    return text.split()[2]


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


@pytest.fixture(scope="module", params=SANDBOXES)
def sandbox(request: pytest.FixtureRequest, registry: LocalRegistry, attack_base: str, tool: Path) -> Run:
    """All attacks in one sandbox."""
    name, isolation = request.param
    allow = [f"{registry.host}/attacks/"]
    settings = Settings(_buildah(name), [registry], isolation=isolation, allow=allow, limits=LIMITS)
    run = Run()

    def attack(attacks: list[Attack], user: str | None) -> None:
        with Host(attacks, tool, attack_base, registry.host) as host:
            arena = Arena(attacks, host, replace(settings, user=user))
            arena.run()
            run.found |= {one.name: breaches(one, host, registry, arena.evidence[one.name]) for one in attacks}
        run.evidence |= arena.evidence
        run.remains |= arena.remains
        run.other_ended += [arena.other_ended] if arena.other_ended else []
        run.unenforced = arena.unenforced

    # With the same user as its builds the server has nothing but the sandbox between them and itself.
    attack([one for one in ATTACKS if one.category != "limits"], USER)
    # Started by root each build has an account and a cgroup of its own, in which the limits hold.
    attack([one for one in ATTACKS if one.category == "limits"], None)
    shown = {one.name: None if run.is_unenforced(one) else run.found[one.name] for one in ATTACKS}
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = {"sandbox": f"{_version(name)} {isolation}", "found": shown}
    (RESULTS / f"{name}-{isolation}.json").write_text(json.dumps(result, indent=1))
    return run


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(sandbox: Run, attack: Attack) -> None:
    if sandbox.is_unenforced(attack):
        assert not (ROOT and limits_enforced(str(attack.needs))), sandbox.unenforced
        return
    found = sandbox.found[attack.name]
    assert not found, "\n".join([*found, *sandbox.evidence[attack.name].lines[-30:]])


def test_nothing_of_the_attacks_is_left(sandbox: Run) -> None:
    assert not sandbox.remains


def test_another_build_does_not_notice(sandbox: Run) -> None:
    assert not sandbox.other_ended


def _controls() -> Iterator[tuple[str, Attack]]:
    """What is shown with which Buildah; what needs none is shown once."""
    for name in BUILDAHS:
        version = _numbers(_version(name))
        for attack in ATTACKS:
            control = attack.control
            within = _numbers(control.since or "0") <= version < _numbers(control.fixed_in or "1000")
            again = control.way in ("host", "script") and name != BUILDAHS[0]
            if control.way and within and not again and (ROOT or not control.root):
                yield name, attack


CONTROLS = list(_controls())
_SHOWN = {attack.name for name, attack in CONTROLS if name == BUILDAHS[0]}


@pytest.fixture(scope="module")
def unprotected(request: pytest.FixtureRequest, registry: LocalRegistry, attack_base: str, tool: Path) -> Iterator[Run]:
    """The controls that are asked for, with one Buildah."""
    asked = {item.callspec.params["attack"].name for item in request.session.items if _is_control(item, request.param)}
    attacks = [attack for name, attack in CONTROLS if name == request.param and attack.name in asked]
    with Host(attacks, tool, attack_base, registry.host) as host:
        run = Unprotected(attacks, host, _buildah(request.param))
        try:
            run.run()
            found = {one.name: breaches(one, host, registry, run.evidence[one.name]) for one in attacks}
            for one in attacks:
                if not found[one.name]:
                    found[one.name] = breaches(one, host, registry, run.again(one))
        finally:
            run.clean()
        yield Run(found, run.evidence)


def _is_control(item: pytest.Item, name: str) -> bool:
    return item.name.startswith("test_without_a_sandbox") and item.callspec.params["unprotected"] == name


@pytest.mark.parametrize(
    ("unprotected", "attack"),
    # With another Buildah what works with the first one is shown by `make test-all`.
    [
        pytest.param(*control, marks=[pytest.mark.matrix] if control[0] != BUILDAHS[0] and control[1].name in _SHOWN else [])
        for control in CONTROLS
    ],
    indirect=["unprotected"],
    scope="module",
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_without_a_sandbox_it_succeeds(unprotected: Run, attack: Attack) -> None:
    lines = unprotected.evidence[attack.name].lines
    assert unprotected.found[attack.name], "\n".join(["the attack does not work:", *lines[-40:]])


def test_the_document_lists_these_attacks() -> None:
    """As scripts/security_table.py has written them, and every one of them held."""
    text = (REPOSITORY / "docs/security.md").read_text()
    rows = re.findall(r"^\| \[([^]]+)\]\(([^)]+)\): (.*?) \| .*? \|(.*)\|$", text, re.MULTILINE)
    assert [(name, title) for name, _, title, _ in rows] == [(attack.name, attack.title) for attack in ATTACKS]
    needs = {attack.name: attack.needs for attack in ATTACKS}
    for name, path, _, cells in rows:
        assert (REPOSITORY / "docs" / path / "attack.toml").exists(), path
        allowed = {"held", "not enforced"} if needs[name] else {"held"}
        assert {cell.strip() for cell in cells.split("|")} <= allowed, f"{name}: {cells}"


def test_there_are_many_attacks_of_every_category() -> None:
    assert len(ATTACKS) >= 60
    assert {attack.category for attack in ATTACKS} == set(CATEGORIES)
