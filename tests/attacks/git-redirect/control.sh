git -c http.http://127.0.0.1:@PORT@/team.extraHeader="Authorization: Basic $(printf 'me:@PASSWORD@' | base64)" ls-remote http://127.0.0.1:@PORT@/team/redirect/@NAME@/x.git
