hostile() { # hostile NAME: a tree in which a directory of that name is a repository with a command in its configuration
  config=$(printf '[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfsmonitor = touch @OUT@/configured; false\n' | git hash-object -w --stdin)
  head=$(echo 'ref: refs/heads/main' | git hash-object -w --stdin)
  empty=$(git hash-object -w /dev/null)
  keep=$(printf '100644 blob %s\tkeep\n' $empty | git mktree)
  printf '100644 blob %s\tHEAD\n100644 blob %s\tconfig\n040000 tree %s\tobjects\n040000 tree %s\trefs\n' $head $config $keep $keep | git mktree
}
file=$(git hash-object -w Containerfile)

tree=$(printf '040000 tree %s\t.GIT\n100644 blob %s\tContainerfile\n040000 tree %s\tgit~1\n' $(hostile) $file $(hostile) | git mktree)
git update-ref refs/heads/main $(git commit-tree -m x $tree)
