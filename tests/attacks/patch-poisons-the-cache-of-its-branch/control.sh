echo @CANARY@ >work/word
$BUILDAH build --isolation chroot --tls-verify=false work >/dev/null
echo clean >work/word
$BUILDAH build --isolation chroot --tls-verify=false work
