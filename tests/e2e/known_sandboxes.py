"""What servers have found out about the sandbox of an account, handed on to later servers.

A server that has run before on this boot has it, too. Without it the first build of each account tries the sandbox, which
takes longer than most tests. A server believes it for the very same question alone.
"""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

_ANSWER = "cache/{}/probe.json"


class KnownSandboxes:
    """The answers of all servers of this process, by what they differ in."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, ...], dict[str, bytes]] = {}
        self._states: dict[Path, tuple[str, ...]] = {}

    def give(self, state: Path, kind: tuple[str, ...]) -> None:
        """Gives what is known to a server that has no state yet."""
        self._states[state] = kind
        if state.exists():
            return
        for other in self._states:
            self._keep(other)
        for account, answer in self._answers.get(kind, {}).items():
            owner = pwd.getpwnam(account)
            directory = state / f"cache/{account}"
            for path in (state, state / "cache"):
                path.mkdir(mode=0o711, exist_ok=True)
            directory.mkdir(mode=0o700)
            file = state / _ANSWER.format(account)
            file.touch(mode=0o600)
            file.write_bytes(answer)
            for path in (directory, file):
                os.chown(path, owner.pw_uid, owner.pw_gid)

    def forget(self, state: Path) -> None:
        """Keeps what a server has found out that goes."""
        self._keep(state)
        self._states.pop(state, None)

    def _keep(self, state: Path) -> None:
        if kind := self._states.get(state):
            answers = self._answers.setdefault(kind, {})
            for file in state.glob(_ANSWER.format("*")):
                answer = file.read_bytes()
                # A weaker one than there could be is for nobody else.
                if json.loads(answer)["host"]["refused"] == []:
                    answers[file.parent.name] = answer
