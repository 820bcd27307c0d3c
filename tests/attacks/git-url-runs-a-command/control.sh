GIT_ALLOW_PROTOCOL=ext git ls-remote "ext::sh -c touch% @OUT@/ext"
