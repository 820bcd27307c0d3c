cp -r @ALLOWED@/../host/canary copied && cat copied
