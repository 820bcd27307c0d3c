mkdir plain && cp -a work/. plain && rm -rf plain/.git && cd plain && git apply --unsafe-paths ../patch && cat leak
