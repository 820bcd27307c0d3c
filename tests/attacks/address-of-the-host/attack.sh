for address in @ADDRESSES@; do attack reach $address @PORT@ @NAME@; done
