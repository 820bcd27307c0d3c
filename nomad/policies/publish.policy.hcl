# The task `publish`: passes the commit point of its build.
namespace "builds" {
  variables {
    path "nomad-build/b/*" {
      capabilities = ["read", "write"]
    }
  }
}
