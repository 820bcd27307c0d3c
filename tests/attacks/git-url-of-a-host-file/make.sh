git init --quiet private
cp @HOST@/canary private/canary
printf 'FROM @BASE@\nCOPY canary /\nRUN cat /canary\n' >private/Containerfile
git -C private add --all
git -C private commit --quiet --message=x
