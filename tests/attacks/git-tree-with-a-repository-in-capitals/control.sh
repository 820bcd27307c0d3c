git -c core.protectHFS=false -c core.protectNTFS=false clone --quiet @GIT@/@NAME@.git clone
# As on a file system that knows no capitals.
mkdir tree && mv clone/.GIT tree/.git && cd tree && git status
