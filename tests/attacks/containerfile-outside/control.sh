$BUILDAH build --isolation chroot -f ../../host/letter .
