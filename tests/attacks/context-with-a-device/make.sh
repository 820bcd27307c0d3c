mknod zero c 1 5
