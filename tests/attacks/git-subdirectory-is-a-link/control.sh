git clone --quiet @GIT@/@NAME@.git clone && cat clone/link/canary
