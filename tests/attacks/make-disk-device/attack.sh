mknod disk b @DISK@ && head -c 512 disk >/dev/null && echo BREACH
mknod full c 1 7 && echo x >full
[ -c full ] && echo BREACH
