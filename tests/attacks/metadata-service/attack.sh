attack reach @METADATA@ @PORT@ @NAME@
