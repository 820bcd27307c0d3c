# The server, on Nomad before 1.11.2, where stopping a job takes the right to change jobs: dispatches builds,
# follows them, tells them to stop, keeps their records. It may not read an allocation's files, or run a
# command in it.
namespace "builds" {
  capabilities = [
    "list-jobs",
    "read-job",
    "dispatch-job",
    "submit-job",
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
