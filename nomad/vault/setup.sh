#!/usr/bin/env bash
# Makes in Vault (or OpenBao) what the tasks of nomad-build need to take their secrets from it through Nomad:
# the auth method that believes Nomad's workload identities, and for each task of each profile, and for the
# server, a policy that reads one path and a role that only that task of that job in that namespace gets.
# Policies and roles of these names are written anew; an auth method that is there already is left as it is, and
# must believe the same keys (--overwrite configures it anew, also for whoever else uses it). Nothing else is touched, and no secret is read.
#
#   VAULT_ADDR=… VAULT_TOKEN=… nomad/vault/setup.sh --jwks https://nomad.example.com:4646/.well-known/jwks.json default large
#
# Run it again with the names of all profiles when one comes. The secrets are then put by people:
#
#   vault kv put secret/nomad-build/default/build   auth.json=@pull.json git-token=@token npm=@npm-token
#   vault kv put secret/nomad-build/default/publish auth.json=@push.json
#   vault kv put secret/nomad-build/default/archive auth.json=@logs.json
#   vault kv put secret/nomad-build/server          auth.json=@logs.json
set -euo pipefail

usage() {
  cat >&2 <<'EOF'
usage: setup.sh --jwks URL [OPTION VALUE]... PROFILE...
  --jwks URL               where Vault reads Nomad's public keys: ADDRESS/.well-known/jwks.json
  --jwks-ca FILE           certificate that this URL is checked against (default: the system's)
  --name NAME              name of the jobs, as their variable `name` (default: nomad-build)
  --namespace NAME         Nomad's namespace of builds (default: builds)
  --server-namespace NAME  Nomad's namespace of the server's job (default: default)
  --mount PATH             key-value store of version 2 (default: secret; made if it is not there)
  --prefix PATH            path of the secrets in it (default: nomad-build)
  --auth PATH              path of the auth method, as `jwt_auth_backend_path` of Nomad's clients (default: jwt-nomad)
  --overwrite              configure an auth method that is there anew: its default role and all else of it go
  --audience NAME          audience of `default_identity` of Nomad's servers (default: vault.io)
The command line is $VAULT_CLI (default: vault, else bao), which VAULT_ADDR, VAULT_TOKEN and their like tell where.
EOF
  exit 2
}

fail() { printf 'setup.sh: %s\n' "$*" >&2; exit 1; }

jwks='' jwks_ca='' name=nomad-build namespace=builds server_namespace=default
mount=secret prefix=nomad-build auth=jwt-nomad audience=vault.io
profiles=() overwrite=''
while (($#)); do
  case $1 in
    --overwrite)
      overwrite=yes
      shift
      ;;
    --*)
      (($# > 1)) || usage
      option=${1#--}
      option=${option//-/_}
      case $option in
        jwks | jwks_ca | name | namespace | server_namespace | mount | prefix | auth | audience)
          printf -v "$option" '%s' "$2" ;;
        *) usage ;;
      esac
      shift 2
      ;;
    *)
      # They become parts of paths and of names.
      [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$ ]] || fail "$1 is no name of a profile"
      for other in ${profiles[@]+"${profiles[@]}"}; do
        # Vault keeps the names of roles and policies in small letters.
        [[ $other == "$1" || ${other,,} != "${1,,}" ]] ||
          fail "the profiles $other and $1 differ in capitals alone: Vault would give both the same roles and policies"
      done
      profiles+=("$1")
      shift
      ;;
  esac
done
[[ $jwks ]] && ((${#profiles[@]})) || usage
for value in "$name" "$namespace" "$server_namespace" "$mount" "$prefix" "$auth" "$audience"; do
  [[ $value =~ ^[A-Za-z0-9][A-Za-z0-9._/-]*$ ]] || fail "'$value' has characters that a name or path here must not have"
done

cli=${VAULT_CLI:-$(command -v vault || command -v bao)} || fail "neither vault nor bao is in PATH; name one by VAULT_CLI"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# filled FILE NAME=VALUE...: the file with its ${NAME}s.
filled() {
  local text pair
  text=$(<"$1")
  shift
  for pair; do
    text=${text//"\${${pair%%=*}}"/"${pair#*=}"}
  done
  printf '%s\n' "$text"
}

# allow NAME NAMESPACE JOB TASK SECRETS: a policy and a role of this name.
allow() {
  printf 'role %s: task %s of job %s in namespace %s reads %s/data/%s/%s\n' "$1" "$4" "$3" "$2" "$mount" "$prefix" "$5"
  filled "$here/task.policy.hcl" mount="$mount" prefix="$prefix" secrets="$5" | "$cli" policy write "$1" - >/dev/null
  filled "$here/role.json" audience="$audience" namespace="$2" job="$3" task="$4" policy="$1" |
    "$cli" write "auth/$auth/role/$1" - >/dev/null
}

if ! "$cli" read "sys/mounts/$mount" >/dev/null 2>&1; then
  printf 'key-value store %s: making it\n' "$mount"
  "$cli" secrets enable -path="$mount" -version=2 kv >/dev/null
fi
# Others may use the auth method, too: what it believes is not changed under them.
if [[ -z $overwrite ]] && believed=$("$cli" read -field=jwks_url "auth/$auth/config" 2>/dev/null); then
  [[ $believed == "$jwks" ]] ||
    fail "the auth method $auth believes the keys at ${believed:-another place}; name another one by --auth, or configure it anew by --overwrite"
else
  printf 'auth method %s: making it\n' "$auth"
  "$cli" read "sys/mounts/auth/$auth" >/dev/null 2>&1 || "$cli" auth enable -path="$auth" jwt >/dev/null
  config=(jwks_url="$jwks" jwt_supported_algs=RS256,EdDSA)
  [[ -z $jwks_ca ]] || config+=(jwks_ca_pem=@"$jwks_ca")
  "$cli" write "auth/$auth/config" "${config[@]}" >/dev/null
fi

for profile in "${profiles[@]}"; do
  for task in build publish archive; do
    allow "$name-$profile-$task" "$namespace" "$name-$profile" "$task" "$profile/$task"
  done
done
allow "$name-server" "$server_namespace" "$name" server server
