$BUILDAH pull --tls-verify=false @PRIVATE@ && $BUILDAH pull --tls-verify=false @TRAP@ &&
  $BUILDAH build --isolation chroot --pull=never .
