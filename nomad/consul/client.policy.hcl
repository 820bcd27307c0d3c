# What whoever looks for a server needs: `nomad-build build --server consul://nomad-build`, and Prometheus.
#
#   consul acl policy create -name nomad-build-client -rules @nomad/consul/client.policy.hcl
#
# The name is the service's. Tokens are sent to where that service is: give the right to write it to Nomad alone.

service "nomad-build" {
  policy = "read"
}
# The health of a service is told with that of its node.
node_prefix "" {
  policy = "read"
}
