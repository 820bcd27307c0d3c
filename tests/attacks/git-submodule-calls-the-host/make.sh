cat >.gitmodules <<'X'
[submodule "x"]
	path = x
	url = http://127.0.0.1:@PORT@/@NAME@/x.git
X
git add --all
git update-index --add --cacheinfo 160000,1111111111111111111111111111111111111111,x
git commit --quiet --message=x
