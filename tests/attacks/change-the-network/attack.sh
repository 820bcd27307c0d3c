ip link set lo up
ip route del blackhole 169.254.0.0/16 2>/dev/null && echo BREACH
ip route add 169.254.169.254/32 dev lo && echo BREACH
