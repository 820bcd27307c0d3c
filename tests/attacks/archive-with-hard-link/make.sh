python3 - <<'PY'
import io, tarfile

with tarfile.open("hostile.tar", "w") as tar:
    def add(name, kind=tarfile.REGTYPE, target="", data=b"x\n"):
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.size, entry.mode = kind, target, len(data) if kind == tarfile.REGTYPE else 0, 0o666
        tar.addfile(entry, io.BytesIO(data))
    add("leak", tarfile.LNKTYPE, "@HOST@/canary")
PY
