#!/usr/bin/env bash
# Builds the Dockerfile's last stage from binaries built here, on a base made from this machine's C library, so that
# neither a registry nor a network is needed. Prints the path of the image as a docker-archive.
#
#   tests/e2e/image.sh [IMAGE]      default localhost/coterie:dev
#
# COTERIE_PROFILE  debug (default) or release
# COTERIE_E2E_DIR  where the archive and the stripped binaries are kept (default target/e2e)
set -euo pipefail

image=${1:-localhost/coterie:dev}
profile=${COTERIE_PROFILE:-debug}
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
dir=${COTERIE_E2E_DIR:-$target/e2e}
binaries=(coterie-sidecar coterie-operator coterie coterie-worker)
base=localhost/coterie-base:host

say() { printf 'image: %s\n' "$*" >&2; }
command -v buildah >/dev/null || { say 'buildah is missing: sudo apt-get install --no-install-recommends buildah'; exit 1; }

cd "$root"
say "building ${binaries[*]} ($profile)"
flags=(); [ "$profile" = debug ] || flags=(--release)
for binary in "${binaries[@]}"; do flags+=(--bin "$binary"); done
cargo build --quiet "${flags[@]}"

mkdir -p "$dir/bin"
changed=
for binary in "${binaries[@]}"; do
  [ "$dir/bin/$binary" -nt "$target/$profile/$binary" ] && continue
  strip -o "$dir/bin/$binary" "$target/$profile/$binary"
  changed=1
done
archive=$dir/image.tar
if [ -z "$changed" ] && [ "$archive" -nt "$root/Dockerfile" ] && [ "$archive" -nt "$0" ] && [ "$(cat "$dir/image" 2>/dev/null)" = "$image" ]; then
  say "$archive is up to date"; echo "$archive"; exit
fi

# The base: the libraries that the binaries name, at the paths where they name them, and the CA certificates.
container=$(buildah from scratch)
trap 'buildah rm "$container" >/dev/null' EXIT
libraries=$(for binary in "${binaries[@]}"; do ldd "$dir/bin/$binary"; done | grep -oE '/[^ ]+' | sort -u)
for library in $libraries; do buildah copy -q "$container" "$(readlink -f "$library")" "$library" >/dev/null; done
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
  buildah copy -q "$container" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt >/dev/null
fi
ids() { buildah images -q --no-trunc "$base" 2>/dev/null || true; buildah images -q --no-trunc "$image" 2>/dev/null || true; }
old=$(ids)
buildah commit -q "$container" "$base" >/dev/null

say "building the last stage of the Dockerfile on it"
buildah build -q --isolation chroot --pull-never --build-arg "BASE=$base" --build-context "binaries=$dir/bin" --tag "$image" --file "$root/Dockerfile" "$root" >&2
rm -f "$archive.new"
buildah push -q "$image" "docker-archive:$archive.new:$image"
mv "$archive.new" "$archive"
echo "$image" > "$dir/image"
for id in $old; do # what the names meant before
  ids | grep -qx "$id" || buildah rmi -f "$id" >/dev/null 2>&1 || true
done
say "$archive: $(du -h "$archive" | cut -f1)"
echo "$archive"
