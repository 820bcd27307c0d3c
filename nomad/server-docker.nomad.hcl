# The server of a cluster: MCP over HTTP for many agents, run by the docker driver in the image of Containerfile.
#
#   nomad job run -var image=registry.example.com/nomad-build:0.1.0 nomad/server-docker.nomad.hcl
#
# See README.md for its rights and for the tokens of its callers.

variable "image" {
  description = "The image of Containerfile."
  type        = string
}

variable "volumes" {
  description = "Directories of the clients that the server may read, such as /etc/nomad-build:/etc/nomad-build:ro with its registry's credentials, which belong to the image's user (64100)."
  type        = list(string)
  default     = []
}

variable "name" {
  description = "The job's name, and beginning of the names of the build jobs (nomad.job of the configuration)."
  type        = string
  default     = "nomad-build"
}

variable "namespace" {
  description = "Namespace of this job. Builds are in the one that builds_namespace names."
  type        = string
  default     = "default"
}

variable "builds_namespace" {
  description = "Namespace of the build jobs and of the records."
  type        = string
  default     = "builds"
}

variable "datacenters" {
  type    = list(string)
  default = ["*"]
}

variable "node_pool" {
  type    = string
  default = "default"
}

variable "servers" {
  description = "How many servers; each answers any request."
  type        = number
  default     = 1
}

variable "provider" {
  description = "Where the service is registered: nomad or consul."
  type        = string
  default     = "nomad"
}

variable "vault" {
  description = "Whether the server takes the credential of its own repository from Vault, by the role that vault/setup.sh makes."
  type        = bool
  default     = false
}

variable "vault_path" {
  description = "Where the secrets are, as templates read a key-value store of version 2: the server's at `server` below it."
  type        = string
  default     = "secret/data/nomad-build"
}

variable "server_secrets" {
  description = "Fields of `server` that the server gets as files of these names: auth.json for its own repository, and what consul.token_file of the configuration names."
  type        = list(string)
  default     = ["auth.json"]
}

variable "config" {
  description = "Configuration of the server: a TOML file as of docs/configuration.md, without secrets."
  type        = string
  default     = "# all defaults"
}

job "server" {
  id          = var.name
  name        = var.name
  namespace   = var.namespace
  datacenters = var.datacenters
  node_pool   = var.node_pool
  type        = "service"

  group "server" {
    count = var.servers

    # It holds nothing: it may start again at once, and as often as it must.
    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }
    # The next one is up before this one ends, and builds do not notice.
    update {
      max_parallel     = 1
      canary           = var.servers
      auto_promote     = true
      health_check     = "checks"
      min_healthy_time = "5s"
      healthy_deadline = "2m"
      auto_revert      = true
    }

    network {
      port "http" {}
    }

    service {
      name     = var.name
      provider = var.provider
      port     = "http"
      tags     = ["mcp", "metrics"]

      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "3s"
        check_restart {
          limit = 3
          grace = "30s"
        }
      }
      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "10s"
        timeout  = "5s"
      }
    }

    task "server" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "20s"

      # What it may do in Nomad hangs on this: the task's API, as this workload. There is no token to keep.
      identity {
        file = true
      }
      template {
        destination = "${NOMAD_TASK_DIR}/config.toml"
        data        = var.config
        change_mode = "restart"
        perms       = "0644"
      }
      # Who may call: lines of `nomad-build token NAME --print`, digests alone. Read again when they change.
      template {
        destination = "${NOMAD_SECRETS_DIR}/tokens"
        data        = <<-EOT
          {{ with nomadVar "nomad/jobs/${var.name}" }}{{ .tokens }}{{ end }}
        EOT
        change_mode = "noop"
        perms       = "0644"
      }
      # What it has is of its own: the repository of inputs and logs, and its keys in Consul.
      dynamic "vault" {
        for_each = var.vault ? ["server"] : []
        content {
          role         = "${var.name}-server"
          env          = false
          disable_file = true
          change_mode  = "noop"
        }
      }
      dynamic "template" {
        for_each = var.vault ? var.server_secrets : []
        content {
          destination = "${NOMAD_SECRETS_DIR}/${template.value}"
          data        = "{{ with secret \"${var.vault_path}/server\" }}{{ index .Data.data \"${template.value}\" }}{{ end }}"
          change_mode = "noop"
          perms       = "0400"
          uid         = 64100
        }
      }
      env {
        # One pool of memory for all threads: what one lets go, another can have, and soon the machine.
        MALLOC_ARENA_MAX        = "1"
        MALLOC_TRIM_THRESHOLD_  = "131072"
        NOMAD_NAMESPACE         = var.builds_namespace
        NOMAD_BUILD_BACKEND     = "nomad"
        NOMAD_BUILD_CONFIG      = "${NOMAD_TASK_DIR}/config.toml"
        NOMAD_BUILD_HTTP_LISTEN = "${NOMAD_IP_http}:${NOMAD_PORT_http}"
        NOMAD_BUILD_HTTP_TOKENS = "${NOMAD_SECRETS_DIR}/tokens"
        REGISTRY_AUTH_FILE      = "${NOMAD_SECRETS_DIR}/auth.json"
        NOMAD_BUILD_STATE_DIR   = "${NOMAD_TASK_DIR}/state"
      }
      config {
        image        = var.image
        command      = "nomad-build"
        args         = ["serve"]
        network_mode = "host"
        volumes      = var.volumes
        cap_drop     = ["all"]
      }
      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
