[ -c zero ] && echo BREACH
