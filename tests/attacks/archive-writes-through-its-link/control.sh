mkdir unpacked && tar -C unpacked -P -xf hostile.tar
