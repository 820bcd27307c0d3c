kill -STOP @VICTIM_PID@ && echo stopped
