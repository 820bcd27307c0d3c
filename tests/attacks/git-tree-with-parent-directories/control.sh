# File by file, as their names say.
git clone --quiet --bare @GIT@/@NAME@.git bare.git && mkdir tree && cd tree
git -C ../bare.git ls-tree -r main | while read -r _ _ id path; do
  mkdir -p "$(dirname "$path")" && git -C ../bare.git cat-file blob "$id" >"$path"
done
