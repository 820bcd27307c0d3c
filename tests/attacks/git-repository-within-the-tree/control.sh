git clone --quiet @GIT@/@NAME@.git clone && cd clone/inner && git status
