#!/usr/bin/env bash
# Makes a small base image from this machine's static busybox, and pushes it.
#
#   scripts/base-image.sh HOST/REPOSITORY:TAG [--insecure] [--authfile FILE] [--add FILE] [--rootfs TAR [--path PATH]]
#
# --insecure talks plain HTTP to the registry, as does one that NOMAD_BUILD_REGISTRY_INSECURE names; --add puts a program into /usr/local/bin; --rootfs takes a root
# filesystem instead of busybox, --path its search path. Rootless: when started as root, as an account for builds.
set -euo pipefail

# Where servers hold the accounts of their builds.
readonly LOCKS=/run/nomad-build/users

usage() { echo "usage: scripts/base-image.sh HOST/REPOSITORY:TAG [--insecure] [--authfile FILE] [--add FILE] [--rootfs TAR [--path PATH]]" >&2; exit 2; }

image=
authfile=
program=
rootfs=
path=/usr/local/bin:/usr/bin:/bin
tls_verify=true
while (($# > 0)); do
  case $1 in
    --insecure) tls_verify=false ;;
    --authfile) (($# >= 2)) || usage; authfile=$2; shift ;;
    --add) (($# >= 2)) || usage; program=$2; shift ;;
    --rootfs) (($# >= 2)) || usage; rootfs=$2; shift ;;
    --path) (($# >= 2)) || usage; path=$2; shift ;;
    -*) usage ;;
    *) [[ -z $image ]] || usage; image=$1 ;;
  esac
  shift
done
[[ $image == */*:* ]] || usage
insecure=${NOMAD_BUILD_REGISTRY_INSECURE:-}
# A list, in whatever form the program takes it.
[[ " ${insecure//[^A-Za-z0-9.:-]/ } " != *" ${image%%/*} "* ]] || tls_verify=false

work=$(mktemp -d "${TMPDIR:-/tmp}/nomad-build-base.XXXXXX")
# Files of subordinate users can be removed only within their user namespace.
trap 'rm -rf "$work" 2>/dev/null || XDG_RUNTIME_DIR=$work command buildah unshare rm -rf "$work"' EXIT

# The root filesystem of busybox, with the program that was asked for.
add_busybox() {
  local busybox root=$work/root applet
  busybox=$(command -v busybox) || { echo "busybox is missing: run scripts/setup.sh" >&2; exit 1; }
  mkdir -p "$root"/{bin,dev,etc,proc,root,sys,usr/bin,usr/local/bin,var}
  mkdir -m 1777 "$root/tmp" "$root/var/tmp"
  install -m 0755 "$busybox" "$root/bin/busybox"
  for applet in $("$busybox" --list); do
    [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
  done
  [[ -z $program ]] || install -m 0755 "$program" "$root/usr/local/bin"
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
  tar -C "$root" --create --owner 0 --group 0 --numeric-owner --file "$work/context/root.tar" .
}

mkdir -p "$work"/{context,home,run,tmp}
if [[ -n $rootfs ]]; then
  cp "$rootfs" "$work/context/root.tar"
else
  add_busybox
fi
cat >"$work/context/Containerfile" <<CONTAINERFILE
FROM scratch
ADD root.tar /
ENV PATH=$path
CMD ["/bin/sh"]
CONTAINERFILE

# Sets `user` to an account for builds that no build has as long as this runs. Servers take the first that is free, so
# the last one is.
take_build_user() {
  local n=0 lock
  while getent passwd "nomad-build-$((n + 1))" >/dev/null; do n=$((n + 1)); done
  user=nomad-build-$n
  getent passwd "$user" >/dev/null || { echo "the account $user is missing: run nomad-build setup" >&2; exit 1; }
  install -d -m 0700 "$LOCKS"
  exec {lock}>>"$LOCKS/$user.lock"
  flock --wait 300 "$lock" || { echo "all accounts for builds are taken" >&2; exit 1; }
}

auth=()
if [[ -n $authfile ]]; then
  install -m 0600 "$authfile" "$work/auth.json"
  auth=(--authfile "$work/auth.json")
fi

as_user=()
if ((EUID == 0)); then
  take_build_user
  chown -R "$user:$(id -g "$user")" "$work"
  as_user=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
fi
# vfs needs nothing of the machine, and the image is small. Buildah wants a directory that its user can read.
buildah() {
  (cd "$work" && "${as_user[@]}" env -i "PATH=$PATH" "HOME=$work/home" "XDG_RUNTIME_DIR=$work/run" "TMPDIR=$work/tmp" \
    "${NOMAD_BUILD_BUILDAH:-buildah}" --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@")
}

buildah build --quiet --isolation chroot --timestamp 0 --tag "$image" "$work/context" >/dev/null
buildah push --quiet "--tls-verify=$tls_verify" "${auth[@]}" "$image" "docker://$image"
echo "pushed $image"
