# Who sends the polite signal alone waits without end.
setsid sh -c "trap '' TERM; sleep 8" &
sleep 1; kill $!; sleep 1; kill -0 $! && echo BREACH it still runs
kill -9 $!
