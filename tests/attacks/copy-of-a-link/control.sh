cp -L leak copied && cat copied
