mkdir plain && cp -a work/. plain && rm -rf plain/.git && cd plain && patch --follow-symlinks -p1 <../patch; patch -d link -p2 <../patch
