#!/usr/bin/env python3
"""Writes the table attack × sandbox into docs/security.md.

    scripts/security_table.py [--check]

The rows come from tests/attacks, the cells from the last run of tests/e2e/test_attacks.py, which leaves them in
target/attacks. `--check` writes nothing and fails when the table would change.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/e2e"))

from attacks import Attack, load_all  # noqa: E402

DOCUMENT = REPOSITORY / "docs/security.md"
RESULTS = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "attacks"
BEGIN = "<!-- begin of the table: scripts/security_table.py -->"
END = "<!-- end of the table -->"
_SHOWN = {
    "buildah": "plain Buildah",
    "test": "plain Buildah, `run`",
    "host": "without a container",
    "script": "plain git or shell",
}


def render(attacks: list[Attack], runs: list[dict[str, Any]]) -> str:
    """The table in Markdown; a run has `sandbox`, and what was `found` of each attack in it."""
    sandboxes = [run["sandbox"] for run in runs]
    lines = [f"{len(attacks)} attacks.", ""]
    for category, group in groupby(attacks, key=lambda attack: attack.category):
        lines += [f"### {category.capitalize()}", ""]
        lines += ["| attack | succeeds in | " + " | ".join(sandboxes) + " |"]
        lines += ["|---|---|" + "---|" * len(sandboxes)]
        for attack in group:
            cells = [_cell(run["found"][attack.name]) for run in runs]
            name = f"[{attack.name}](../tests/attacks/{attack.name}): {attack.title}"
            lines.append("| " + " | ".join([name, _shown(attack), *cells]) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(found: list[str] | None) -> str:
    return "not enforced" if found is None else "**breach**" if found else "held"


def _shown(attack: Attack) -> str:
    control = attack.control
    if control.way is None:
        return f"not shown: {control.unsafe}"
    bounds = [control.since and f"≥ {control.since}", control.fixed_in and f"< {control.fixed_in}"]
    words = [_SHOWN[control.way], *filter(None, bounds), "as root" if control.root else ""]
    return " ".join(filter(None, words)) + (" (`" + " ".join(control.options) + "`)" if control.options else "")


def read_runs() -> list[dict[str, Any]]:
    """What the last run left, in the order of the sandboxes."""
    runs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    if not runs:
        raise SystemExit(f"{RESULTS} has no results: run pytest tests/e2e/test_attacks.py")
    return sorted(runs, key=lambda run: run["sandbox"])


def main() -> None:
    """Writes, or with --check compares."""
    text = DOCUMENT.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{DOCUMENT} has no markers {BEGIN} and {END}")
    new = f"{before}{BEGIN}\n\n{render(load_all(), read_runs())}\n{END}{after}"
    if "--check" not in sys.argv[1:]:
        DOCUMENT.write_text(new)
    elif new != text:
        raise SystemExit(f"{DOCUMENT} is not up to date: run scripts/security_table.py")


if __name__ == "__main__":
    main()
