for point in /usr /sys /proc/sys /etc/resolv.conf /.nomad-build-init; do
  mount -o remount,bind,rw $point 2>/dev/null && echo "BREACH $point"
done
