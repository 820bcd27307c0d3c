ln -s @OUT@ link
