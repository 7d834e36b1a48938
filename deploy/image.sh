#!/bin/sh
# Makes the image NAME of the static program BINARY: deploy/image.sh BINARY NAME
set -eu
binary=$1 name=$2
deploy=$(dirname "$0")
if ldd "$binary" >/dev/null 2>&1 && ! ldd "$binary" 2>&1 | grep -q 'statically linked'; then
    echo "$binary needs libraries, and the image has none: build it with" >&2
    echo '  RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target x86_64-unknown-linux-gnu' >&2
    exit 1
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/etc/ssl/certs" "$root/data"
mkdir -m 1777 "$root/tmp"
cp "$binary" "$root/tenon"
for certificates in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
    if [ -f "$certificates" ]; then
        cp "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
        break
    fi
done
docker build -q -f "$deploy/Dockerfile.binary" -t "$name" "$root"
