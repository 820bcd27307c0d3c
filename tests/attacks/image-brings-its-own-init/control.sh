$BUILDAH build --isolation chroot --tls-verify=false --tag @NAME@ . && container=$($BUILDAH from @NAME@) &&
  $BUILDAH run --isolation chroot $container -- /.nomad-build-init -- sh -c 'exit 3'
