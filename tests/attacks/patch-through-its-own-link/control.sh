# File by file, as a loop over the parts of a patch does it.
mkdir plain && cd plain && head -n 7 ../patch | git apply --unsafe-paths && sed 1,7d ../patch | sed 's,link/,,' | git -C link apply --unsafe-paths
