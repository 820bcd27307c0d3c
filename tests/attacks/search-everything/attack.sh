find / \( -path /proc -o -path /sys -o -path /attacks \) -prune -o -type f -exec grep -sl @CANARY@ {} + | sed 's/^/BREACH in /'
