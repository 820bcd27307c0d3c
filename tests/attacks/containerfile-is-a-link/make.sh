ln -s @HOST@/letter Containerfile
