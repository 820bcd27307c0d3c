echo "* filter=evil" >.gitattributes
