#!/usr/bin/env bash
# Makes what is handed out, in dist/: a static program, a Debian package, and a container image that nomad-build has
# built itself.
#
#   scripts/dist.sh [program|deb|image]...      default: all three
#
# Needs scripts/setup.sh and Rust; installs what else it needs, and says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CARGO_DEB_VERSION=3.8.0
dist=$PWD/dist
target=$(uname -m)-unknown-linux-musl
tools=${XDG_CACHE_HOME:-$HOME/.cache}/nomad-build/tools
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
program=${CARGO_TARGET_DIR:-target}/$target/release/nomad-build
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

say() { printf 'dist: %s\n' "$*"; }
as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }

# needs COMMAND PACKAGE
needs() {
  if ! command -v "$1" >/dev/null; then
    say "installing $2"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$2"
  fi
}

# The program without any library: it runs on every Linux of this architecture.
make_program() {
  needs musl-gcc musl-tools
  rustup target list --installed | grep -qx "$target" || rustup target add "$target"
  say "compiling the static program"
  # Nothing unwinds (panic = "abort"), and what the loader corrects at the start is packed: a tenth of the size.
  local flags='-C force-unwind-tables=no'
  if [[ $(ld --help) == *pack-relative-relocs* ]]; then
    flags+=' -C link-arg=-Wl,-z,pack-relative-relocs'
  fi
  env "CC_${target//-/_}=musl-gcc" "RUSTFLAGS=${RUSTFLAGS:-} $flags" cargo build --release --locked --target "$target"
  mkdir -p "$dist"
  install -m 0755 "$program" "$dist/nomad-build-$version-$(uname -m)-linux"
}

make_deb() {
  if ! "$tools/bin/cargo-deb" --version 2>/dev/null | grep -qx "cargo-deb $CARGO_DEB_VERSION"; then
    say "installing cargo-deb $CARGO_DEB_VERSION"
    cargo install --quiet --force --locked --root "$tools" --version "$CARGO_DEB_VERSION" cargo-deb
  fi
  say "making the Debian package"
  rm -rf "$dist/share"
  mkdir -p "$dist/share"
  "$program" man "$dist/share/man"
  "$program" completions bash >"$dist/share/nomad-build.bash"
  "$tools/bin/cargo-deb" --no-build --locked --target "$target" --output "$dist/"
}

# BASE: the image that it starts from, a Debian; default one that is made here from Debian's packages.
make_image() {
  local staged
  staged=$(mktemp -d)
  # Builds may run as another user.
  chmod 0755 "$staged"
  # shellcheck disable=SC2064  # the name of the directory as it is now
  trap "rm -rf '$staged'" EXIT
  if [[ -n ${BASE:-} ]]; then
    cp nomad/Containerfile "$staged/"
  else
    needs mmdebstrap mmdebstrap
    say "making a Debian to start from"
    mmdebstrap --quiet --variant=minbase --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr bookworm "$staged/debian.tar"
    sed 's|^FROM .*|FROM scratch\nADD debian.tar /|' nomad/Containerfile >"$staged/Containerfile"
  fi
  install -D -m 0755 "$program" "$staged/target/release/nomad-build"
  "$program" setup
  say "building the image with nomad-build itself"
  "$program" build "$staged" ${BASE:+--build-arg "BASE=$BASE"} --name nomad-build-image --test 'nomad-build --version' \
    --output "$dist/nomad-build-$version-image.tar"
}

(($#)) || set -- program deb image
for one in "$@"; do
  case $one in
    program | deb | image) "make_$one" ;;
    *) say "usage: scripts/dist.sh [program|deb|image]..." >&2; exit 2 ;;
  esac
done
say "made in $dist:"
ls -l "$dist"
