# One task's secrets, read by their path alone: neither listed nor changed, and no other's.
path "${mount}/data/${prefix}/${secrets}" {
  capabilities = ["read"]
}

# What Nomad does with the task's token while it runs, and at its end.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
