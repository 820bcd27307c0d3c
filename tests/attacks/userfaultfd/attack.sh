attack try userfaultfd
