"""What was seen of an attack, and whether something of it is what must not happen."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass, field
from typing import Any

from attacks import Attack
from bait import Host
from local_registry import LocalRegistry
from machine import processes_with

# Where Buildah repeats the Containerfile: what it says there has not happened.
_ECHO = re.compile(
    r'^(\[\d+/\d+\] )?STEP \d+/\d+: .*|\bbuilding at STEP ".*?": |\bcreating container for \[.*?\]: '
)


@dataclass
class Evidence:
    """What was seen of one attack in one run."""

    lines: list[str] = field(default_factory=list)
    """What it printed."""
    state: str = "unknown"
    """How its build ended; `refused` when there was none."""
    status: dict[str, Any] = field(default_factory=dict)
    """The last status of its build."""
    answers: list[str] = field(default_factory=list)
    """What an agent was shown."""
    seconds: float = 0


def breaches(attack: Attack, host: Host, registry: LocalRegistry, seen: Evidence) -> list[str]:
    """What happened that must not happen; the same in a sandbox and without one."""
    wrong = attack.breach
    failure = seen.status.get("failure", {})
    told = [_ECHO.sub("", line) for line in seen.lines]
    found = []
    for text in ("BREACH", host.canary, *host.fill(attack, wrong.log)):
        found += [f"printed {line[:200]}" for line in told if text.lower() in line.lower()][:3]
    found += [f"answered {host.canary}" for answer in seen.answers if host.canary in answer.lower()][:1]
    calls = host.services.calls.get(attack.name, [])
    if wrong.reached and calls:
        found.append("reached the host's service")
    found += ["sent a credential of the host" for headers in calls if _has_credential(headers, host)][:1]
    found += [f"wrote {path}" for path in host.fill(attack, wrong.written) if os.path.lexists(host.host / "out" / path)]
    if wrong.victim:
        found += host.lost(attack)
    if wrong.survives:
        found += [f"still runs: {process}" for process in processes_with(host.markers[attack.name])]
    if seen.state in wrong.state:
        found.append(f"the build {seen.state}")
    if wrong.unless and (seen.state == "succeeded" or failure and failure["kind"] not in wrong.unless):
        found.append(f"the build {seen.state}: {failure.get('kind')}")
    sizes = [len(line) for line in seen.lines]
    if wrong.log_bytes and sum(sizes) > wrong.log_bytes:
        found.append(f"stored a log of {sum(sizes)} bytes")
    if wrong.line_bytes and max(sizes, default=0) > wrong.line_bytes:
        found.append(f"stored a line of {max(sizes)} bytes")
    found += [f"claims {text}" for text in host.fill(attack, wrong.claims) if _claims(seen, text)]
    found += [f"passed on {text!r}" for text in wrong.raw if any(text in one for one in seen.answers or told)]
    if wrong.published:
        repository, _, tag = host.fill(attack, wrong.published).rpartition(":")
        found += ["published the tag"] if registry.digest(repository, tag) else []
    if wrong.accepted and seen.state != "refused":
        found.append("accepted the request")
    if wrong.seconds and seen.seconds > wrong.seconds:
        found.append(f"took {seen.seconds:.0f} s")
    return found


def _claims(seen: Evidence, text: str) -> bool:
    """Whether the text is told as true: outside of quoted output, or at the beginning of a line."""
    own_words = json.dumps({key: value for key, value in seen.status.items() if key not in ("failure", "tests")})
    shown = [line for answer in seen.answers for line in answer.splitlines()]
    # Without a server between, whoever reads the output sees its lines as they are.
    return text in own_words or any(line.startswith(text) for line in (shown if seen.answers else seen.lines))


def _has_credential(headers: str, host: Host) -> bool:
    sent = [base64.b64decode(match[1]).decode(errors="replace") for match in re.finditer(r"Basic (\S+)", headers)]
    return any(word in one for one in sent for word in (host.canary, host.password))
