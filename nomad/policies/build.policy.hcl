# The task `build`, which starts foreign code: looks whether its build was marked, or begun elsewhere.
namespace "builds" {
  variables {
    path "nomad-build/b/*" {
      capabilities = ["read"]
    }
  }
}
