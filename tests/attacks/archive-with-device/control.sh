mkdir unpacked && tar -C unpacked -xf hostile.tar && [ -b unpacked/disk ] && echo BREACH
