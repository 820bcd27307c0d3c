attack reach @GATEWAY@ @PORT@ @NAME@
