git clone --quiet --recurse-submodules @GIT@/@NAME@.git clone
