attack reach @ADDRESS@ @PORT@ @NAME@
attack reach @ADDRESS6@ @PORT@ @NAME@
