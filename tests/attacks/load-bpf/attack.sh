attack try bpf
