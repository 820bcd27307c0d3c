# One task's secrets, read by their path alone: neither listed nor changed, and no other's.
path "${mount}/data/${prefix}/${secrets}" {
  capabilities = ["read"]
}

# By what Nomad keeps the task's token as long as the task runs.
path "auth/token/renew-self" {
  capabilities = ["update"]
}
