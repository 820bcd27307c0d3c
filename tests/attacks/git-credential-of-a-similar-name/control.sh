# As with a comparison of texts.
git -c http.http://127.0.0.1:@PORT@.extraHeader="Authorization: Basic $(printf 'me:@PASSWORD@' | base64 -w 0)" ls-remote http://127.0.0.1:@PORT@/team-of-others/@NAME@/x.git
