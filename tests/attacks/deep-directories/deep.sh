mkdir /deep && cd /deep || exit 1
i=0
while [ $i -lt 1500 ]; do
  mkdir directory && cd -P directory || exit 1
  i=$((i + 1))
done
