cat /proc/[0-9]*/root@HOST@/canary /proc/[0-9]*/cwd/../../../../../..@HOST@/canary
