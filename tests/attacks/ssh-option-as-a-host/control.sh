ssh "-oProxyCommand=touch @OUT@/ssh" x
