HOME=@HOST@/home git ls-remote http://127.0.0.1:@PORT@/@NAME@/private/x.git
