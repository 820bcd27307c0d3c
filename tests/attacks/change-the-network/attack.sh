ip link set lo up
ip rule del priority 1 2>/dev/null && echo BREACH
ip rule add to 169.254.0.0/16 priority 1 lookup main && echo BREACH
ip route add 169.254.169.254/32 dev lo && echo BREACH
