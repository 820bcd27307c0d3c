for place in /etc/hosts /etc/resolv.conf /proc/self/root @HOST@; do attack open-handle $place @HANDLE@; done
