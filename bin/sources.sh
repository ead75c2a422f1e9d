# sources [find's arguments]: finds among what the executable is made of, in $root.
sources() {
  (cd "$root" && find . \
    \( -path ./.git -o -path ./.toolchain -o -path ./node_modules -o -path ./dist -o -path ./ffi/target \
    -o -path ./ffi/tests -o -path ./ffi/examples -o -path ./tests -o -path ./bench -o -path ./examples \
    -o -path ./docs -o -path ./coverage -o -path ./.ci -o -path ./bin/test -o -name '*.md' \) -prune -o "$@")
}
