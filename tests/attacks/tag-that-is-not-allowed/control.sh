printf 'FROM @BASE@\n' >Containerfile
$BUILDAH build --isolation chroot --tls-verify=false --tag @NAME@ . && $BUILDAH push --tls-verify=false @NAME@ docker://@REGISTRY@/forbidden/@NAME@:1
