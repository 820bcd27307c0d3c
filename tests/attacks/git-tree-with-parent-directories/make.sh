tree=$(printf '100644 blob %s\tparent\n' $(echo x | git hash-object -w --stdin) | git mktree)
for name in $(echo @OUT@ | tr / '\n' | tac); do tree=$(printf '040000 tree %s\t%s\n' $tree $name | git mktree); done
for i in 1 2 3 4 5 6 7 8 9 10; do tree=$(printf '040000 tree %s\t..\n' $tree | git mktree); done
tree=$( (printf '100644 blob %s\tContainerfile\n' $(git hash-object -w Containerfile); git ls-tree $tree) | git mktree)
git update-ref refs/heads/main $(git commit-tree -m x $tree)
