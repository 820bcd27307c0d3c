mkdir root && ln -s @HOST@ root/evil && cp root/evil/canary copied && cat copied
