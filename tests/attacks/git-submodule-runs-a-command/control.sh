git -c protocol.ext.allow=always clone --quiet --recurse-submodules @GIT@/@NAME@.git clone
