ln -s @HOST@ link
