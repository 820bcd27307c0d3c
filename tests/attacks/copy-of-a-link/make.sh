ln -s @HOST@/canary leak
