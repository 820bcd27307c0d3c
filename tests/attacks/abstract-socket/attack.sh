attack abstract @ABSTRACT@ @NAME@
