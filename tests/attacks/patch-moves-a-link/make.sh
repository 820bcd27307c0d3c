mkdir -p a/b/c/d/e/f/g/h/i/j && ln -s ../../../../../../../../../..@HOST@/canary a/b/c/d/e/f/g/h/i/j/leak
