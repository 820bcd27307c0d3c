attack try userns
