git -c protocol.file.allow=always clone --quiet file://@STAGE@/private clone && cat clone/canary
