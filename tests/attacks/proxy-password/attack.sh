env | grep -i proxy
