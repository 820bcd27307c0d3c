$BUILDAH pull --tls-verify=false @PRIVATE@ && $BUILDAH build --isolation chroot --pull=never .
