attack reach 127.0.0.1 @PORT@ @NAME@
attack reach ::1 @PORT@ @NAME@
