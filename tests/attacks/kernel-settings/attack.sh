for file in /proc/sys/kernel/randomize_va_space /proc/sys/net/ipv4/ip_forward /proc/sys/vm/swappiness \
  /sys/kernel/mm/ksm/sleep_millisecs /sys/block/*/queue/read_ahead_kb; do
  value=$(cat $file 2>/dev/null) && echo "$value" 2>/dev/null >$file && echo "BREACH $file"
done
