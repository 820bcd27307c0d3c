git clone --quiet --bare @GIT@/@NAME@.git bare.git
mkdir tree && cd tree && git -C ../bare.git archive main | tar -P -x
