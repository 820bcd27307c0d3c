attack inherited canary @HOST@/canary
