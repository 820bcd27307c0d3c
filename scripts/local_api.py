"""Requests to the HTTP APIs of services on this machine, for the demo and the tests."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


def request_json(
    method: str,
    url: str,
    headers: dict[str, str],
    data: bytes | None = None,
    *,
    handlers: tuple[urllib.request.BaseHandler, ...] = (),
    seconds: float = 30,
) -> Any:
    """The answer, which is JSON or nothing. Never through a proxy: the service is on this machine.

    Raises:
        RuntimeError: with what the service says, where it refuses.
    """
    request = urllib.request.Request(url, data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)
    try:
        with opener.open(request, timeout=seconds) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{method} {request.selector}: {error.code} {error.read().decode(errors='replace')}") from error
    return json.loads(text) if text else None
