"""A search for secrets in everything that a build has left: in plain, base64 and URL-encoded."""

from __future__ import annotations

import base64
import gzip
import io
import os
import stat
import urllib.parse
import zlib
from collections.abc import Callable
from pathlib import Path


class Search:
    """Secrets by their names, and where they were found."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self.secrets = secrets
        self.found: list[str] = []
        self.files = 0
        self.unpacked = 0
        self._forms = {name: self.forms(name) for name in secrets}

    def forms(self, name: str) -> list[bytes]:
        """How a secret may stand somewhere."""
        secret = self.secrets[name]
        forms = {secret.encode(), urllib.parse.quote(secret, safe="").encode(), urllib.parse.quote_plus(secret).encode()}
        for before in range(3):
            # In the middle of something else, too: what its neighbours have a part in does not count.
            encoded = base64.b64encode(bytes(before) + secret.encode()).rstrip(b"=")
            start, end = -(-before * 8 // 6), (before + len(secret)) * 8 // 6
            forms.add(encoded[start:end])
            forms.add(base64.urlsafe_b64encode(bytes(before) + secret.encode()).rstrip(b"=")[start:end])
        assert all(len(form) > 8 for form in forms), name
        return sorted(forms)

    def bytes(self, where: str, data: bytes) -> None:
        """Looks into bytes, and into what they hold where they are packed."""
        for name, forms in self._forms.items():
            if any(form in data for form in forms):
                self.found.append(f"{name} in {where}")
        if data.startswith(b"\x1f\x8b"):
            try:
                self.bytes(f"{where} (unpacked)", gzip.GzipFile(fileobj=io.BytesIO(data)).read())
                self.unpacked += 1
            except (OSError, EOFError, zlib.error):
                pass

    def packed(self, where: str, text: str) -> None:
        """Looks into what base64 may stand for."""
        try:
            self.bytes(where, base64.b64decode(text, validate=True))
        except ValueError:
            self.text(where, text)

    def text(self, where: str, text: str) -> None:
        """Looks into a text."""
        self.bytes(where, text.encode())

    def tree(self, root: Path, but: Callable[[Path], bool] = lambda path: False) -> None:
        """Looks into every file below a directory, and at its name."""
        for directory, names, files in os.walk(root):
            names[:] = [name for name in names if not but(Path(directory, name))]
            for path in (Path(directory, name) for name in files):
                if not but(path):
                    self.file(path)

    def file(self, path: Path) -> None:
        """Looks into a file, and at its name."""
        self.bytes(f"the name {path}", str(path).encode())
        try:
            if stat.S_ISREG(path.lstat().st_mode):
                self.bytes(str(path), path.read_bytes())
                self.files += 1
        except (FileNotFoundError, PermissionError):
            # It vanishes, or only others may read it.
            pass
