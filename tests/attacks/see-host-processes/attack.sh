for process in /proc/[0-9]*; do
  case "$(tr '\0' ' ' 2>/dev/null <$process/cmdline)" in "sleep @VICTIM@ ") echo "BREACH $process" ;; esac
done
