attack leave-chroot @HOST@/canary
