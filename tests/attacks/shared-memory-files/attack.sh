head -c 4096 /dev/shm/*
