find / \( -path /proc -o -path /sys -o -path /attacks \) -prune -o -type f -size -2048k -exec grep -sl @CANARY@ {} + | sed 's/^/BREACH in /'
