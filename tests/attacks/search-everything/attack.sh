find / \( -path /proc -o -path /sys -o -path /attacks -o -path '/dev/shm/*' -size +2048k \) -prune -o -type f -exec grep -sl @CANARY@ {} + | sed 's/^/BREACH in /'
