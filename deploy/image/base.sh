#!/usr/bin/env bash
# Builds the base images of deploy/Containerfile from Debian packages instead of pulling them from a registry: one with
# python3.11 and one with busybox for the target architecture, and one with pip for this machine. Packages are unpacked
# but not configured, so no program of the target architecture runs. Requires root, mmdebstrap and buildah. Called by
# deploy/image/build.sh.
#
#   base.sh ARCH     (amd64 or arm64)
#
# Prints a line VARIABLE=IMAGE for each of PYTHON_BASE, BUSYBOX and BASE. An image that exists is reused;
# build.sh --fresh removes them first.
# shellcheck disable=SC2016 # mmdebstrap expands the variables in the hooks
set -euo pipefail

release=bookworm
arch=$1

# If the host runs the same Debian release, use its package sources, which may name a mirror. Otherwise mmdebstrap uses
# Debian's public sources.
sources=()
if grep -qs "^VERSION_CODENAME=$release$" /etc/os-release; then
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [ ! -s "$file" ] || { sources=("$file"); break; }
  done
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
apt-config dump Acquire | grep -v '^Acquire::\(IndexTargets\|Changelogs\|Languages\|CompressionTypes\)' >"$work/apt.conf"
cat >"$work/os-release" <<OS
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION_CODENAME=$release
ID=debian
OS

# build_base VARIABLE NAME ARCH PACKAGE...
build_base() {
  local variable=$1 name=$2 arch=$3 image key
  shift 3
  # The tag is a hash of the inputs, so that a changed list of packages results in another image.
  key=$(printf '%s\n' "$release" "$arch" "$*" "$(sha256sum <"$0")" | sha256sum | cut -c1-12)
  image=localhost/genplug-$name:$arch-$key
  if ! buildah inspect --type image "$image" >/dev/null 2>&1; then
    # Scanners find the packages of an image without dpkg in status.d/PACKAGE and status.d/PACKAGE.md5sums.
    mmdebstrap --quiet --mode=root --variant=extract --architectures="$arch" --include="$(IFS=,; echo "$*")" \
      --aptopt='Apt::Install-Recommends "false"' --aptopt="$work/apt.conf" \
      --setup-hook='cd "$1" && mkdir -p etc usr/bin usr/lib usr/lib64 usr/sbin && ln -s usr/bin usr/lib usr/lib64 usr/sbin .' \
      --setup-hook="cp '$work/os-release' \"\$1/etc/os-release\"" \
      --extract-hook='
        mkdir -p "$1/var/lib/dpkg/status.d"
        for deb in "$1"/var/cache/apt/archives/*.deb; do
          record=$1/var/lib/dpkg/status.d/$(dpkg-deb --field "$deb" Package)
          dpkg-deb --field "$deb" >"$record"
          dpkg-deb --ctrl-tarfile "$deb" | tar -xO ./md5sums >"$record.md5sums"
        done' \
      "$release" "$work/$name.tar" "${sources[@]}" >&2
    container=$(buildah from --arch "$arch" scratch)
    buildah add --quiet "$container" "$work/$name.tar" / >&2
    buildah config --arch "$arch" --os linux "$container"
    buildah commit --quiet --rm "$container" "$image" >&2
    rm "$work/$name.tar"
  fi
  echo "$variable=$image"
}

build_base PYTHON_BASE python "$arch" python3.11-minimal libpython3.11-stdlib libstdc++6
build_base BUSYBOX busybox "$arch" busybox-static
build_base BASE build "$(dpkg --print-architecture)" python3.11 python3-pip
