$BUILDAH unshare sh -c 'mkdir locked && touch locked/file && chown -R 1000:1000 locked && chmod 0 locked'
rm -rf locked
[ -e locked ] && echo BREACH it is still there
$BUILDAH unshare rm -rf locked
