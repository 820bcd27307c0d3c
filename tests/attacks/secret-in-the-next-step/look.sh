# The log masks the secret itself.
for file in $(find / -xdev -name secret -size +0 2>/dev/null) /run/secrets/*; do [ -s "$file" ] && echo "BREACH $file"; done
true
