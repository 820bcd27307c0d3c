attack read-shm @SHM@
