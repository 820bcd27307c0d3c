"""Images put into a registry by hand, without Buildah; and whether a registry has all of one."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import os
import tarfile
from typing import Any

from local_registry import MANIFEST_TYPES, LocalRegistry

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def extend(registry: LocalRegistry, repository: str, tag: str, new: str, size: int) -> str:
    """Tags the image with one more layer, of `size` random bytes, as `new`; returns the layer's digest."""
    manifest = json.loads(_get(registry, f"/v2/{repository}/manifests/{tag}"))
    config = json.loads(_get(registry, f"/v2/{repository}/blobs/{manifest['config']['digest']}"))
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        member = tarfile.TarInfo(f"layer-{new}")
        member.size = size
        archive.addfile(member, io.BytesIO(os.urandom(size)))
    layer = gzip.compress(plain.getvalue(), 1)
    config["rootfs"]["diff_ids"].append(_digest(plain.getvalue()))
    if "history" in config:
        config["history"].append({"created_by": "by hand"})
    manifest["layers"].append({"mediaType": _LAYER, **_put_blob(registry, repository, layer)})
    manifest["config"] |= _put_blob(registry, repository, json.dumps(config).encode())
    headers = {"Content-Type": manifest.get("mediaType", _MANIFEST)}
    _ask(registry, "PUT", f"/v2/{repository}/manifests/{new}", json.dumps(manifest).encode(), headers)
    return manifest["layers"][-1]["digest"]


def missing_blobs(registry: LocalRegistry, repository: str, tag: str) -> list[str]:
    """Digests of what the image behind a tag needs and the registry does not have, or has with other bytes."""
    manifest = json.loads(_get(registry, f"/v2/{repository}/manifests/{tag}"))
    missing = []
    for blob in (manifest["config"], *manifest["layers"]):
        status, _, content = _raw(registry, "GET", f"/v2/{repository}/blobs/{blob['digest']}")
        if status != 200 or _digest(content) != blob["digest"]:
            missing.append(blob["digest"])
    return missing


def _put_blob(registry: LocalRegistry, repository: str, content: bytes) -> dict[str, Any]:
    digest = _digest(content)
    _, headers, _ = _ask(registry, "POST", f"/v2/{repository}/blobs/uploads/")
    place = headers["Location"].removeprefix(f"http://{registry.host}")
    separator = "&" if "?" in place else "?"
    octets = {"Content-Type": "application/octet-stream"}
    _ask(registry, "PUT", f"{place}{separator}digest={digest}", content, octets)
    return {"digest": digest, "size": len(content)}


def _get(registry: LocalRegistry, path: str) -> bytes:
    return _ask(registry, "GET", path, headers={"Accept": MANIFEST_TYPES})[2]


def _ask(
    registry: LocalRegistry, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    status, answered, content = _raw(registry, method, path, body, headers)
    assert 200 <= status < 300, f"{method} {path}: {status} {content!r}"
    return status, answered, content


def _raw(
    registry: LocalRegistry, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(registry.host, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
