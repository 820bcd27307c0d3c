# As a program does that goes by paths.
python3 - <<'PY'
import os

name = "directory" * 20
os.mkdir("deep")
os.chdir("deep")
for _ in range(60):
    os.mkdir(name)
    os.chdir(name)
os.chdir("@STAGE@")
try:
    for directory, _, _ in os.walk("@STAGE@/deep", topdown=False):
        os.rmdir(directory)
except OSError:
    print("BREACH it is still there")
PY
rm -rf deep
