cc -shared -fPIC -o preload.so preload.c
