# What Nomad's agents need in Consul to register the server there (`-var provider=consul`), and nothing else.
#
#   consul acl policy create -name nomad-build-nomad -rules @nomad/consul/nomad.policy.hcl
#
# The name is the service's. Agents of Nomad that also register themselves need the right to do so besides, or
# `auto_advertise = false`.

# Whether there is a Consul, and which: without it no client takes the job.
agent_prefix "" {
  policy = "read"
}
# Callers send their tokens to where this service is: nobody else should have the right.
service "nomad-build" {
  policy = "write"
}
