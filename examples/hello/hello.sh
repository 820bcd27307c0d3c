#!/bin/sh
# Greets whoever is named, and all that it knows otherwise.
set -eu

if [ "${1:-}" = "--version" ]; then
    echo "hello @VERSION@"
    exit 0
fi
if [ "$#" -gt 0 ]; then
    echo "Hello, $*!"
    exit 0
fi
while read -r word; do
    echo "Hello, $word!"
done < /usr/share/hello/words
