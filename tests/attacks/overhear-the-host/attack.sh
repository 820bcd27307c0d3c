attack sniff @CANARY@
