attack try io_uring_setup
