git init --quiet --bare served.git
git init --quiet clone && cd clone && git fetch ../served.git "--upload-pack=touch @OUT@/option"
