mkdir plain && cd plain && git apply --unsafe-paths -p0 ../patch
