#!/usr/bin/env bash
# Runs every benchmark, and prints the figures that are ratios once more as one table. For a quiet machine; TMPDIR
# names the file system, best the one on which builds and logs will lie. A goal that is missed is no error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
log=${CARGO_TARGET_DIR:-target}/bench.txt
mkdir -p "$(dirname "$log")"
{
  cargo bench --locked
  python3 benches/builds.py
  python3 benches/logs.py
} | tee "$log"
printf '\n| what | measured | beside | ratio | goal | |\n|---|---|---|---|---|---|\n'
grep '^| ' "$log"
