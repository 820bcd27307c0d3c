attack read-queue @QUEUE@
