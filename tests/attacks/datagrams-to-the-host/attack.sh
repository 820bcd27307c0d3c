for address in 127.0.0.1 ::1 @ADDRESSES@ @GATEWAY@ @METADATA@; do attack udp $address @PORT@ @NAME@; done
