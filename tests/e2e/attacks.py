"""The attacks of tests/attacks as data: one folder each.

A folder holds `attack.toml`, and what the attack consists of. In every text file `@NAME@` stands for a
word of the host that is attacked (see `bait.py`). `attack.toml`:

    title = "…"               what the attack tries, in one line
    category = "…"            one of CATEGORIES
    kind = "…"                how it comes to the server, one of KINDS
    needs = "…"               what the host must be able to enforce, one of NEEDS
    [breach]                  what must not happen, besides BREACH or the canary in the output; see Breach
    [request]                 arguments of `build`, over those of the kind, or of another `tool`;
                              or `[[steps]]`, several in order
    [control]                 how it succeeds where nothing stops it; see Control

Kinds:
    code           `attack.sh`, run by RUN and as a test; many share one build
    containerfile  the folder, after `make.sh`, is the source
    test           the same, and `[request]` has tests
    repository     the folder, after `make.sh`, is committed to a repository that is the source
    patch          the same, and the file `patch` is applied
    request        `[request]` alone
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).resolve().parents[1] / "attacks"
KINDS = ("code", "containerfile", "test", "repository", "patch", "request")
CATEGORIES = (
    "host files",
    "credentials",
    "processes",
    "network",
    "kernel",
    "limits",
    "forgery",
    "cache",
    "git",
    "patches",
    "contexts",
    "requests",
)
NEEDS = ("memory",)
WAYS = ("buildah", "test", "host", "script")


@dataclass(frozen=True)
class Breach:
    """What must not happen; each is looked for in the control, too, and one of them must be found there."""

    log: tuple[str, ...] = ()
    """Texts that no line of output may have."""
    written: tuple[str, ...] = ()
    """Paths below the host's directory at which nothing may appear."""
    reached: bool = False
    """Whether the host's service may not be called with this attack's name."""
    victim: bool = False
    """Whether the attack has a process of the host to end or stop."""
    survives: bool = False
    """Whether a process with @MARKER@ in its command line may not be there afterwards."""
    state: tuple[str, ...] = ()
    """States that the build may not end in."""
    unless: tuple[str, ...] = ()
    """Kinds of failure of which it must end with one."""
    log_bytes: int | None = None
    """Size that the stored log may not reach."""
    line_bytes: int | None = None
    """Size that no stored line may reach."""
    claims: tuple[str, ...] = ()
    """Texts that no status may have outside of quoted output, and no line of the answers may begin with."""
    raw: tuple[str, ...] = ()
    """Characters that no answer may have."""
    published: str | None = None
    """Repository and tag that may not be there afterwards."""
    accepted: bool = False
    """Whether the request must be refused at once."""
    seconds: int | None = None
    """How long it may take at most."""


@dataclass(frozen=True)
class Control:
    """How an attack succeeds where nothing stops it."""

    way: str | None = None
    """`buildah`: plain `buildah build --isolation chroot` as the user that builds run as. `test`: the same, then
    `buildah run` of the request's tests. `host`: `attack.sh` outside of any container. `script`: `control.sh`."""
    options: tuple[str, ...] = ()
    """More options of buildah."""
    root: bool = False
    """Whether it is shown as root: in a privileged builder."""
    fixed_in: str | None = None
    """The version of Buildah from which on it does not succeed any more."""
    since: str | None = None
    """The first version of Buildah that knows what it needs."""
    unsafe: str | None = None
    """Why it is not shown: it would harm the machine that runs the tests."""


@dataclass(frozen=True)
class Attack:
    """One folder."""

    name: str
    directory: Path
    title: str
    category: str
    kind: str
    needs: str | None
    breach: Breach
    control: Control
    steps: tuple[dict[str, Any], ...] = field(default=({},))
    """Arguments of `build` for each build in turn."""


def _table(kind: type, data: dict[str, Any], where: str) -> Any:
    known = {entry.name for entry in fields(kind)}
    assert data.keys() <= known, f"{where}: unknown keys {sorted(data.keys() - known)}; known: {sorted(known)}"
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})


def load(directory: Path) -> Attack:
    """Reads and checks one folder."""
    name = directory.name
    data = tomllib.loads((directory / "attack.toml").read_text())
    control = _table(Control, data.pop("control", {}), f"{name}: control")
    steps = data.pop("steps", None) or [data.pop("request", {})]
    attack = Attack(
        name,
        directory,
        data.pop("title"),
        data.pop("category"),
        data.pop("kind"),
        data.pop("needs", None),
        _table(Breach, data.pop("breach", {}), f"{name}: breach"),
        control,
        tuple(steps),
    )
    assert not data, f"{name}: unknown keys {sorted(data)}"
    assert attack.category in CATEGORIES, f"{name}: category is one of {CATEGORIES}"
    assert attack.kind in KINDS, f"{name}: kind is one of {KINDS}"
    assert attack.needs in (None, *NEEDS), f"{name}: needs is one of {NEEDS}"
    assert (control.way is None) != (control.unsafe is None), f"{name}: control has a way, or a reason why it is unsafe"
    assert control.way in (None, *WAYS), f"{name}: control.way is one of {WAYS}"
    for file, needed in {"attack.sh": attack.kind == "code", "control.sh": control.way == "script"}.items():
        assert (directory / file).exists() == needed, f"{name}: {file} is {'missing' if needed else 'not used'}"
    return attack


def load_all() -> list[Attack]:
    """Every attack, in the order of the categories."""
    attacks = [load(path.parent) for path in sorted(DIRECTORY.glob("*/attack.toml"))]
    return sorted(attacks, key=lambda attack: CATEGORIES.index(attack.category))
