mkdir -p k && touch k/../../../../../../../..@OUT@/key
