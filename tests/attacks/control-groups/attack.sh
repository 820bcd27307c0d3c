for directory in $(find /sys/fs/cgroup -maxdepth 3 -type d); do
  mkdir $directory/@NAME@ 2>/dev/null || continue
  rmdir $directory/@NAME@
  echo "BREACH $directory"
done
