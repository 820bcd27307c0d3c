attack reach 127.0.0.1 @OTHER_PORT@ @NAME@
