#!/usr/bin/env bash
# Makes the base image of an example from the compilers and interpreters of this machine, and pushes it. Nothing comes
# from a registry or from the network.
#
#   examples/base.sh c|python|go|rust HOST/REPOSITORY:TAG [--insecure] [--authfile FILE]
#
# A registry of plain HTTP is one that --insecure or NOMAD_BUILD_REGISTRY_INSECURE says. Beside the language there are a
# shell, coreutils, grep, sed, diff and make.
#
# Needs a Debian with the packages gcc, libc6-dev, make and dash (c, rust), python3 (python), and Go or Rust as they are
# found in the search path.
set -euo pipefail

usage() { echo "usage: examples/base.sh c|python|go|rust HOST/REPOSITORY:TAG [--insecure] [--authfile FILE]" >&2; exit 2; }
(($# >= 2)) || usage
language=$1
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/nomad-build-example.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

# Debian's layout: programs and libraries are below /usr.
mkdir -p "$root"/usr/{bin,sbin,lib,lib64,local} "$root"/{etc,root,proc,sys,dev,var} "$root/tmp"
chmod 1777 "$root/tmp"
for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$root/$directory"; done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"

# The files of packages and of all that they depend on, as far as it is installed here.
add_packages() {
  local names
  names=$(apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances "$@" | grep -E '^[a-z0-9]' | sort -u)
  # shellcheck disable=SC2086 # one word a package
  dpkg-query --listfiles $names | sort -u | grep -Ev '^/usr/share/(doc|man|info|locale|lintian|bug)/|^/\.$|^$' |
    while IFS= read -r file; do [[ -d $file && ! -L $file ]] || printf '%s\n' "${file#/}"; done |
    tar -C / --create --no-recursion --ignore-failed-read --files-from - 2>/dev/null |
    tar -C "$root" --extract --keep-directory-symlink
}

# What is in a directory of this machine, by its names there.
add_tree() {
  local from=$1 to=$root/$2
  shift 2
  mkdir -p "$to"
  tar -C "$from" --create "$@" | tar -C "$to" --extract --no-same-owner
}

path=/usr/local/bin:/usr/bin:/bin
tools="dash coreutils grep sed diffutils make"
# shellcheck disable=SC2086 # one word a package
case $language in
  c) add_packages $tools gcc libc6-dev ;;
  python) add_packages $tools python3 ;;
  go)
    add_packages $tools
    add_tree "$(go env GOROOT)" usr/local/go bin go.env pkg src VERSION
    path=/usr/local/go/bin:$path
    ;;
  rust)
    add_packages $tools gcc libc6-dev
    target=$(rustc -vV | sed -n 's/^host: //p')
    sysroot=$(rustc --print sysroot)
    libraries=$(cd "$sysroot" && echo lib/*.so*)
    # shellcheck disable=SC2086 # one word a file
    add_tree "$sysroot" usr/local bin/cargo bin/rustc bin/rustdoc $libraries "lib/rustlib/$target/lib" "lib/rustlib/$target/bin"
    ;;
  *) usage ;;
esac
ln -sf dash "$root/usr/bin/sh"
[[ ! -e $root/usr/bin/gcc ]] || ln -sf gcc "$root/usr/bin/cc"
tar -C "$root" --create --owner 0 --group 0 --numeric-owner --sort name --mtime @0 --file "$work/root.tar" .
"$here/../scripts/base-image.sh" --rootfs "$work/root.tar" --path "$path" "$@"
