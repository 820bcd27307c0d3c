ln -s @HOST@/pattern .containerignore
