#!/usr/bin/env bash
# A registry on this machine to try things with: plain HTTP, no login, for loopback alone.
#
#   examples/registry.sh [PORT]         starts it on localhost:PORT (5000)
#   examples/registry.sh stop [PORT]    ends it; its images stay
#
# Needs docker-registry, which `make setup` installs. What it has lies in ~/.cache/nomad-build/registry-PORT.
set -euo pipefail

usage() { echo "usage: examples/registry.sh [PORT] | stop [PORT]" >&2; exit 2; }
stop=false
if [[ ${1:-} == stop ]]; then stop=true; shift; fi
port=${1:-5000}
[[ $# -le 1 && $port =~ ^[0-9]{1,5}$ ]] || usage
directory=${XDG_CACHE_HOME:-$HOME/.cache}/nomad-build/registry-$port
address=127.0.0.1:$port

# The number of a process that is gone may be another's.
runs() { [[ -s $directory/pid ]] && tr '\0' ' ' <"/proc/$(<"$directory/pid")/cmdline" 2>/dev/null | grep -qF "$directory"; }

if $stop; then
  runs || { echo "no registry of this script runs on port $port" >&2; exit 1; }
  kill "$(<"$directory/pid")"
  for _ in {1..100}; do runs || break; sleep 0.1; done
  rm "$directory/pid"
  exit
fi
runs && { echo "it runs already: localhost:$port"; exit; }
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  echo "port $port is in use, perhaps by the service docker-registry of Debian's package; take another: examples/registry.sh 5001" >&2
  exit 1
fi
program=$(command -v docker-registry) || { echo "there is no docker-registry; install it: make setup, or apt-get install docker-registry" >&2; exit 1; }
mkdir -p "$directory/images"
cat >"$directory/config.yml" <<CONFIG
version: 0.1
storage: {filesystem: {rootdirectory: "$directory/images"}}
http: {addr: "$address"}
CONFIG
nohup "$program" serve "$directory/config.yml" </dev/null >"$directory/log" 2>&1 &
echo $! >"$directory/pid"
for _ in {1..100}; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "localhost:$port; \`examples/registry.sh stop$([[ $port == 5000 ]] || echo " $port")\` ends it"
    exit
  fi
  [[ -n $(jobs -r) ]] || break
  sleep 0.1
done
echo "the registry has not started:" >&2
tail -n 5 "$directory/log" >&2
exit 1
