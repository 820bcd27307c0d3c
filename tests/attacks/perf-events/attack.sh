attack try perf_event_open
