mkdir -p root/etc && ln -s @HOST@/canary root/etc/passwd && cat root/etc/passwd
