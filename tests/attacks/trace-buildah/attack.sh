attack trace buildah
