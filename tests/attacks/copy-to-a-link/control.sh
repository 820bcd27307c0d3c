mkdir root && ln -s @OUT@ root/link && cp data root/link/copied
