cp -r link/canary copied && cat copied
