kill -9 @VICTIM_PID@
for process in /proc/[0-9]*; do
  tr '\0' ' ' <$process/cmdline 2>/dev/null | grep -q "^sleep @VICTIM@" && kill -9 ${process#/proc/}
done
