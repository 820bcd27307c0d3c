git -c protocol.file.allow=always clone --quiet @STAGE@/private clone && cat clone/canary
