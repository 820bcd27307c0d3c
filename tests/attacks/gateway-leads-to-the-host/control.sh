# As pasta is set up when nobody tells it otherwise.
pasta --config-net --quiet -- @TOOL@ reach @GATEWAY@ @PORT@ @NAME@
