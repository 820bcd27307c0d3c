# The task `archive`: writes the end of its build, and where its log is.
namespace "builds" {
  variables {
    path "nomad-build/b/*" {
      capabilities = ["read", "write"]
    }
  }
}
