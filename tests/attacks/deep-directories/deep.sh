# Deeper than any path may be long.
name=$(printf 'directory%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)
mkdir /deep && cd /deep || exit 1
for i in $(seq 60); do mkdir $name && cd -P $name || exit 1; done
