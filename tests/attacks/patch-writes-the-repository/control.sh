git clone --quiet work plain && cd plain && rm .git/config && patch -p1 <../patch; git status
