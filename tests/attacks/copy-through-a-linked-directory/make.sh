ln -s @HOST@ directory
