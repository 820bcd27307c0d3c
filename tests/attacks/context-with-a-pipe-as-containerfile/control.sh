timeout 3 cat Containerfile || echo BREACH it waits
