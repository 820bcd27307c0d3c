git init --quiet ../private
cp @HOST@/canary ../private/canary
git -C ../private add --all
git -C ../private commit --quiet --message=x
cat >.gitmodules <<'X'
[submodule "x"]
	path = x
	url = file://@STAGE@/private
X
git add --all
git update-index --add --cacheinfo "160000,$(git -C ../private rev-parse HEAD),x"
git commit --quiet --message=x
