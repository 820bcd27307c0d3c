attack read-key nomad-build-canary
