file=/proc/sys/kernel/core_pattern
pattern=$(cat $file) && echo "$pattern" >$file && echo BREACH
