mkdir root && ln -s @OUT@ root/link && mkdir -p root/link/made
