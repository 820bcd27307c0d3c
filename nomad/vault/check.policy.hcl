# What `nomad-build check --vault` needs: it looks at the auth method, at roles and at policies, and at whether
# secrets are there. It reads no secret and changes nothing.
#
#   vault policy write nomad-build-check nomad/vault/check.policy.hcl
#   VAULT_TOKEN=$(vault token create -policy=nomad-build-check -ttl=1h -field=token) nomad-build check --vault
#
# Where setup.sh was given another --auth, --mount or --prefix, they are others here, too.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "sys/mounts/auth/jwt-nomad" {
  capabilities = ["read"]
}
path "auth/jwt-nomad/config" {
  capabilities = ["read"]
}
path "auth/jwt-nomad/role" {
  capabilities = ["list"]
}
path "auth/jwt-nomad/role/*" {
  capabilities = ["read"]
}

# Of every role of the auth method: any of them may lead to these secrets.
path "sys/policies/acl/*" {
  capabilities = ["read"]
}

# Which versions of the secrets there are, without what is in them.
path "sys/mounts/secret" {
  capabilities = ["read"]
}
path "secret/metadata/nomad-build/*" {
  capabilities = ["read"]
}
