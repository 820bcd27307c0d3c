attack try vsock
