attack listen @FREE_PORT@ 2
