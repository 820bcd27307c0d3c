hostile() { # hostile NAME: a tree in which a directory of that name is a repository with a command in its configuration
  config=$(printf '[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfsmonitor = touch @OUT@/configured; false\n' | git hash-object -w --stdin)
  head=$(echo 'ref: refs/heads/main' | git hash-object -w --stdin)
  empty=$(git hash-object -w /dev/null)
  keep=$(printf '100644 blob %s\tkeep\n' $empty | git mktree)
  printf '100644 blob %s\tHEAD\n100644 blob %s\tconfig\n040000 tree %s\tobjects\n040000 tree %s\trefs\n' $head $config $keep $keep | git mktree
}
file=$(git hash-object -w Containerfile)

mkdir inner && git archive $(hostile) | tar -C inner -x && sed -i '/bare/d' inner/config && printf '\tbare = false\n\tworktree = .\n' >>inner/config
cp Containerfile inner/
