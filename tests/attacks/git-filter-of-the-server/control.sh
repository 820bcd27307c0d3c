HOME=@HOST@/home git clone --quiet @GIT@/@NAME@.git clone
