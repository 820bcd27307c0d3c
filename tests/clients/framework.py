"""What an agent framework is put to: a stand-in for a model calls the four tools, one after the other.

The wish comes on standard input, what was seen goes to standard output, as for the clients of `talk`.
"""

from __future__ import annotations

import json
import re
from typing import Any

TOOLS = ("build", "status", "logs", "kill")
_ID = re.compile(r"\b[2-9b-z]{5}-[2-9b-z]{5}\b")


def next_call(wish: dict[str, Any], answers: list[str]) -> tuple[str, dict[str, Any]] | None:
    """What the stand-in calls after these answers, which are texts as a model sees them; None: it is done."""
    if not answers:
        return "build", wish["build"]
    if len(answers) == len(TOOLS):
        return None
    found = _ID.search(answers[0])
    assert found, answers[0]
    return TOOLS[len(answers)], {"build_id": found[0]}


def tell(tools: list[str], answers: list[str]) -> None:
    """What the framework offered its model, and what the model was told."""
    print(json.dumps({"tools": tools, "answers": answers}))
