attack try syslog
dd if=/dev/kmsg of=/dev/null bs=8k count=1 && echo BREACH
