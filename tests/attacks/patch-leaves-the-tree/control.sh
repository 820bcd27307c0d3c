mkdir plain && cd plain && git apply --unsafe-paths ../patch
