renice -n -5 -p $$ && echo BREACH
