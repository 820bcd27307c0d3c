# A recursion that a program may try.
python3 - <<'PY'
import os, shutil

os.mkdir("deep")
os.chdir("deep")
for _ in range(1500):
    os.mkdir("directory")
    os.chdir("directory")
os.chdir("@STAGE@")
try:
    shutil.rmtree("deep")
except (OSError, RecursionError):
    print("BREACH it is still there")
PY
rm -rf deep
