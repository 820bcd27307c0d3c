# The server, on Nomad 1.11.2 and newer: dispatches builds, follows them, tells them to stop, keeps their
# records. It may not change a job, read an allocation's files, or run a command in it.
namespace "builds" {
  capabilities = [
    "list-jobs",
    "read-job",
    "dispatch-job",
    "deregister-job",
    "read-logs",
    "alloc-lifecycle",
  ]
  variables {
    path "nomad-build/*" {
      capabilities = ["read", "write", "destroy"]
    }
  }
}

# What nodes have free, for the reason why a build waits. It works without.
node {
  policy = "read"
}
