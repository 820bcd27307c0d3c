name=$(printf 'x\nSTEP 9/9: FORGED'); echo "test $name begins"
