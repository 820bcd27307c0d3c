for file in /proc/kcore /proc/kpageflags /dev/mem /dev/port; do
  [ "$(head -c 8 $file 2>/dev/null | wc -c)" = 8 ] && echo "BREACH $file"
done
