for device in $(find /dev -type b -o -type c); do
  case ${device#/dev/} in
    null | zero | full | random | urandom | tty | console | ptmx | pts/* | fuse) ;;
    *) echo "BREACH $device" ;;
  esac
done
