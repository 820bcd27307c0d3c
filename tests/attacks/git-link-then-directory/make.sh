link=$(printf '@OUT@' | git hash-object -w --stdin)
inner=$(printf '100644 blob %s\tthrough\n' $(echo x | git hash-object -w --stdin) | git mktree)
file=$(git hash-object -w Containerfile)
printf 'tree %s\0' >/dev/null
tree=$( (printf '100644 Containerfile\0'; echo $file | xxd -r -p; printf '120000 a\0'; echo $link | xxd -r -p; printf '40000 a\0'; echo $inner | xxd -r -p) | git hash-object -w -t tree --literally --stdin)
git update-ref refs/heads/main $(git commit-tree -m x $tree)
