cat /dev/shm/*
