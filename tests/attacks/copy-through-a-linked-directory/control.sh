cp directory/canary copied && cat copied
