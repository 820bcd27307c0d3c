tree=$(for i in 0 1 2 3 4 5 6 7 8 9; do printf '100644 blob %s\tfile-%s\n' $(git hash-object -w /dev/null) $i; done | git mktree)
for level in 1 2 3; do tree=$(for i in 0 1 2 3 4 5 6 7 8 9; do printf '040000 tree %s\tdirectory-%s\n' $tree $i; done | git mktree); done
tree=$( (printf '100644 blob %s\tContainerfile\n' $(git hash-object -w Containerfile); git ls-tree $tree) | git mktree)
git update-ref refs/heads/main $(git commit-tree -m x $tree)
