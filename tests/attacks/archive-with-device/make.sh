python3 - <<'PY'
import io, tarfile

with tarfile.open("hostile.tar", "w") as tar:
    def add(name, kind=tarfile.REGTYPE, target="", data=b"x\n"):
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.size, entry.mode = kind, target, len(data) if kind == tarfile.REGTYPE else 0, 0o666
        tar.addfile(entry, io.BytesIO(data))
    entry = tarfile.TarInfo("disk")
    major, minor = "@DISK@".split()
    entry.type, entry.devmajor, entry.devminor, entry.mode = tarfile.BLKTYPE, int(major), int(minor), 0o666
    tar.addfile(entry)
PY
