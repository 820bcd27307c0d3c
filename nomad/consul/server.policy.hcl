# What a server of nomad-build may in Consul: read its configuration below consul.prefix, and nothing else.
#
#   consul acl policy create -name nomad-build-server -rules @nomad/consul/server.policy.hcl
#
# With another consul.prefix, change the name here, too; it ends with a slash. Whoever may write there decides what the
# callers of the server may: give that right to operators alone.

key_prefix "nomad-build/" {
  policy = "read"
}
