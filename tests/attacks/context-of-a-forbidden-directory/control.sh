cp -r @HOST@/canary copied && cat copied
