git clone --quiet @GIT@/@NAME@.git clone
