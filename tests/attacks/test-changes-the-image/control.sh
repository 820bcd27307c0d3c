$BUILDAH build --isolation chroot --tls-verify=false --tag @NAME@ . && container=$($BUILDAH from @NAME@) &&
  $BUILDAH run --isolation chroot $container -- touch /changed &&
  image=$($BUILDAH commit $container) && container=$($BUILDAH from $image) &&
  $BUILDAH run --isolation chroot $container -- test -e /changed && echo BREACH
