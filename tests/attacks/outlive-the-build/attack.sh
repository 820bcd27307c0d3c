setsid sleep @MARKER@ </dev/null >/dev/null 2>&1 &
(trap '' TERM HUP; setsid setsid sleep @MARKER@ </dev/null >/dev/null 2>&1 &)
