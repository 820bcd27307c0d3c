git -c protocol.file.allow=always clone --quiet --recurse-submodules @GIT@/@NAME@.git clone && cat clone/x/canary
