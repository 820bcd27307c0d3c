"""Images that no tool makes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any


def push_variant(source: str, target: str, changes: dict[str, Any]) -> None:
    """Pushes an image in Docker's format that differs in its configuration; OCI's knows no ONBUILD."""
    with tempfile.TemporaryDirectory(prefix="nomad-build-image-") as name:
        directory = Path(name)
        copy_image(f"docker://{source}", f"dir:{directory}", "--format=v2s2")
        manifest = json.loads((directory / "manifest.json").read_text())
        old = directory / manifest["config"]["digest"].removeprefix("sha256:")
        config = json.loads(old.read_text())
        config["config"] |= changes
        new = json.dumps(config).encode()
        digest = hashlib.sha256(new).hexdigest()
        (directory / digest).write_bytes(new)
        manifest["config"] |= {"digest": f"sha256:{digest}", "size": len(new)}
        (directory / "manifest.json").write_text(json.dumps(manifest))
        copy_image(f"dir:{directory}", f"docker://{target}")


def copy_image(source: str, target: str, *options: str) -> None:
    """Copies between registries without TLS, and directories."""
    fixed = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([*fixed, *options, source, target], check=True)
