mkdir root && ln -s @HOST@ root/volume && cp -r root/volume/. saved && cat saved/canary
