$BUILDAH build --isolation chroot --tls-verify=false --tag @TAG@ . && $BUILDAH push --tls-verify=false @TAG@ && false
