git clone --quiet @GIT@/@NAME@.git clone && echo x >clone/link/overlaid
