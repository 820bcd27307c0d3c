attack join @HOST@/canary
