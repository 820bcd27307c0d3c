git clone --quiet --bare @GIT@/@NAME@.git bare.git
mkdir tree && git -C bare.git archive main | tar -C tree -x && cd tree && git status
