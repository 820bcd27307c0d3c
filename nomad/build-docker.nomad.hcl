# Builds of one profile, run by the docker driver: on clients that have Docker and nothing else of this. The
# containers are not privileged, their user is not root, and their system calls are those of seccomp.json.
#
#   nomad job run -var image=registry.example.com/nomad-build:0.1.0 -var memory=2048 nomad/build-docker.nomad.hcl
#
# The server dispatches this job, once a build; nobody else needs to. See README.md for what the clients need.

variable "image" {
  description = "The image of Containerfile."
  type        = string
}

variable "seccomp" {
  description = "Where seccomp.json is on the clients, or unconfined."
  type        = string
  default     = "/etc/nomad-build/seccomp.json"
}

variable "volumes" {
  description = "Directories of the clients that the tasks may read, such as /etc/nomad-build:/etc/nomad-build:ro with credentials. What is secret there belongs to the image's user (64100) and has mode 0600."
  type        = list(string)
  default     = []
}

variable "network_mode" {
  description = "Network of the containers, as Docker names it. What builds reach is bounded within it (sandbox.network)."
  type        = string
  default     = "bridge"
}

variable "name" {
  description = "Beginning of the job's name; the server's nomad.job."
  type        = string
  default     = "nomad-build"
}

variable "profile" {
  description = "Profile whose builds this job runs."
  type        = string
  default     = "default"
}

variable "namespace" {
  description = "Namespace of builds and of their records."
  type        = string
  default     = "default"
}

variable "datacenters" {
  type    = list(string)
  default = ["*"]
}

variable "node_pool" {
  type    = string
  default = "default"
}

variable "config" {
  description = "Configuration of the tasks: a TOML file as of docs/configuration.md, without secrets."
  type        = string
  default     = "# all defaults"
}

variable "vault" {
  description = "Whether the tasks take secrets from Vault, by the roles that vault/setup.sh makes."
  type        = bool
  default     = false
}

variable "vault_path" {
  description = "Where the secrets are, as templates read a key-value store of version 2. A task's are at PROFILE/TASK below it."
  type        = string
  default     = "secret/data/nomad-build"
}

variable "build_secrets" {
  description = "Fields of PROFILE/build that the task `build` gets as files of these names: auth.json to pull, what git.credentials of the configuration name, and secrets of RUN by their own names."
  type        = list(string)
  default     = ["auth.json"]
}

variable "publish_secrets" {
  description = "The same of PROFILE/publish: auth.json to push."
  type        = list(string)
  default     = ["auth.json"]
}

variable "archive_secrets" {
  description = "The same of PROFILE/archive: auth.json to push logs."
  type        = list(string)
  default     = ["auth.json"]
}

variable "build_config" {
  description = "More of it for the task `build` alone: git.credentials, whose files the other tasks do not have."
  type        = string
  default     = ""
}

variable "cpu" {
  description = "MHz of a build."
  type        = number
  default     = 1000
}

variable "memory" {
  description = "MiB of a build."
  type        = number
  default     = 1024
}

variable "disk" {
  description = "MiB of a build's allocation: sources, layers, logs."
  type        = number
  default     = 10240
}

locals {
  # What a sandbox needs of its container, and what `privileged` would be far too much for.
  security = ["seccomp=${var.seccomp}", "apparmor=unconfined"]
  devices  = [{ host_path = "/dev/net/tun" }]
  mounts = [
    # Caches: kept between builds, and shared by those of this profile on a client.
    {
      type   = "volume"
      source = "${var.name}-${var.profile}"
      target = "/var/lib/nomad-build"
    },
    # The kernel gives a process a /proc of its own only where it sees one that nothing masks, and Docker masks
    # parts of the container's (mount_namespaces(7)). This one has nothing but processes, of which it hides all
    # that are not the container's user's; sandboxes do not see it.
    {
      type   = "volume"
      target = "/run/proc"
      volume_options = [{
        driver_config = [{
          name    = "local"
          options = [{ type = "proc", device = "proc", o = "hidepid=2,subset=pid" }]
        }]
      }]
    },
  ]
}

job "build" {
  id          = "${var.name}-${var.profile}"
  name        = "${var.name}-${var.profile}"
  namespace   = var.namespace
  datacenters = var.datacenters
  node_pool   = var.node_pool
  type        = "batch"

  parameterized {
    payload = "required"
  }

  group "build" {
    # A build runs once: whether to run it again its caller decides.
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    # A client that comes back goes on with what it runs.
    disconnect {
      lost_after = "10m"
      replace    = false
      reconcile  = "keep_original"
    }
    ephemeral_disk {
      size = var.disk
    }

    task "build" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"
      lifecycle {
        hook = "prestart"
      }
      dispatch_payload {
        file = "payload"
      }
      identity {
        file = true
      }
      template {
        destination = "${NOMAD_TASK_DIR}/config.toml"
        data        = "${var.config}\n${var.build_config}"
        change_mode = "noop"
        perms       = "0644"
      }
      # Of Vault, and for this task alone: no token in a file or the environment. Each secret is read once, so
      # what is changed meanwhile does not restart the task, nor is it written after the task's end.
      dynamic "vault" {
        for_each = var.vault ? ["build"] : []
        content {
          role         = "${var.name}-${var.profile}-build"
          env          = false
          disable_file = true
          change_mode  = "noop"
        }
      }
      dynamic "template" {
        for_each = var.vault ? var.build_secrets : []
        content {
          destination = "${NOMAD_SECRETS_DIR}/${template.value}"
          data        = "{{ with secret \"${var.vault_path}/${var.profile}/build\" }}{{ index .Data.data \"${template.value}\" }}{{ end }}"
          change_mode = "noop"
          once        = true
          perms       = "0400"
          uid         = 64100
          gid         = 64100
        }
      }
      env {
        NOMAD_BUILD_CONFIG = "${NOMAD_TASK_DIR}/config.toml"
        REGISTRY_AUTH_FILE = "${NOMAD_SECRETS_DIR}/auth.json"
      }
      config {
        image        = var.image
        command      = "nomad-build"
        args         = ["runner", "task", "build"]
        network_mode = var.network_mode
        security_opt = local.security
        devices      = local.devices
        mounts       = local.mounts
        volumes      = var.volumes
      }
      # More than the limit of a log (limits.log_mb), so that nothing of it is thrown away.
      logs {
        max_files     = 10
        max_file_size = 32
      }
      resources {
        cpu    = var.cpu
        memory = var.memory
      }
    }

    task "publish" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"
      dispatch_payload {
        file = "payload"
      }
      identity {
        file = true
      }
      template {
        destination = "${NOMAD_TASK_DIR}/config.toml"
        data        = var.config
        change_mode = "noop"
        perms       = "0644"
      }
      # Of Vault, and for this task alone: no token in a file or the environment. Each secret is read once, so
      # what is changed meanwhile does not restart the task, nor is it written after the task's end.
      dynamic "vault" {
        for_each = var.vault ? ["publish"] : []
        content {
          role         = "${var.name}-${var.profile}-publish"
          env          = false
          disable_file = true
          change_mode  = "noop"
        }
      }
      dynamic "template" {
        for_each = var.vault ? var.publish_secrets : []
        content {
          destination = "${NOMAD_SECRETS_DIR}/${template.value}"
          data        = "{{ with secret \"${var.vault_path}/${var.profile}/publish\" }}{{ index .Data.data \"${template.value}\" }}{{ end }}"
          change_mode = "noop"
          once        = true
          perms       = "0400"
          uid         = 64100
          gid         = 64100
        }
      }
      env {
        NOMAD_BUILD_CONFIG = "${NOMAD_TASK_DIR}/config.toml"
        REGISTRY_AUTH_FILE = "${NOMAD_SECRETS_DIR}/auth.json"
      }
      config {
        image        = var.image
        command      = "nomad-build"
        args         = ["runner", "task", "publish"]
        network_mode = var.network_mode
        volumes      = var.volumes
        cap_drop     = ["all"]
      }
      resources {
        cpu    = 200
        memory = 128
      }
    }

    # Runs whatever became of the others, also when the job was stopped.
    task "archive" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"
      lifecycle {
        hook = "poststop"
      }
      dispatch_payload {
        file = "payload"
      }
      identity {
        file = true
      }
      template {
        destination = "${NOMAD_TASK_DIR}/config.toml"
        data        = var.config
        change_mode = "noop"
        perms       = "0644"
      }
      # Of Vault, and for this task alone: no token in a file or the environment. Each secret is read once, so
      # what is changed meanwhile does not restart the task, nor is it written after the task's end.
      dynamic "vault" {
        for_each = var.vault ? ["archive"] : []
        content {
          role         = "${var.name}-${var.profile}-archive"
          env          = false
          disable_file = true
          change_mode  = "noop"
        }
      }
      dynamic "template" {
        for_each = var.vault ? var.archive_secrets : []
        content {
          destination = "${NOMAD_SECRETS_DIR}/${template.value}"
          data        = "{{ with secret \"${var.vault_path}/${var.profile}/archive\" }}{{ index .Data.data \"${template.value}\" }}{{ end }}"
          change_mode = "noop"
          once        = true
          perms       = "0400"
          uid         = 64100
          gid         = 64100
        }
      }
      env {
        NOMAD_BUILD_CONFIG = "${NOMAD_TASK_DIR}/config.toml"
        REGISTRY_AUTH_FILE = "${NOMAD_SECRETS_DIR}/auth.json"
      }
      config {
        image        = var.image
        command      = "nomad-build"
        args         = ["runner", "task", "archive"]
        network_mode = var.network_mode
        volumes      = var.volumes
        cap_drop     = ["all"]
      }
      resources {
        cpu    = 100
        memory = 128
      }
    }
  }
}
