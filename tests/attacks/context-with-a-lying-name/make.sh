name=$(printf 'file\nFORGED LINE')
touch "$name"
