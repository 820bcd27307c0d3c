attack leave-chroot @OTHER@/canary
attack leave-chroot @OTHER@/../secrets/secret
