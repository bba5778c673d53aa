#!/usr/bin/env bash
# Makes, out of Debian's packages, what deploy/Containerfile takes from a registry otherwise: an image with python3.11 for
# one architecture, one with busybox for it, and one with pip for this machine. Packages are unpacked, never configured,
# so no program of the other architecture runs. As root, with mmdebstrap and buildah; deploy/image/build.sh calls it.
#
#   base.sh ARCH     (amd64, arm64)
#
# Prints a line NAME=IMAGE for each of PYTHON_BASE, BUSYBOX and BASE. Each is made once; build.sh --fresh makes them again.
# shellcheck disable=SC2016 # the hooks are mmdebstrap's to expand
set -euo pipefail

release=bookworm
arch=$1

# The host's own sources where it is that Debian, which is where a mirror is known; Debian's public ones otherwise.
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

# make VARIABLE NAME ARCH PACKAGE...
make() {
  local variable=$1 name=$2 arch=$3 image key
  shift 3
  # A hash of how it is made is its tag: another list of packages is another image.
  key=$(printf '%s\n' "$release" "$arch" "$*" "$(sha256sum <"$0")" | sha256sum | cut -c1-12)
  image=localhost/genplug-$name:$arch-$key
  if ! buildah inspect --type image "$image" >/dev/null 2>&1; then
    # What dpkg would have recorded, in the form of images without dpkg: status.d/PACKAGE and its list of files.
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

make PYTHON_BASE python "$arch" python3.11-minimal libpython3.11-stdlib libstdc++6
make BUSYBOX busybox "$arch" busybox-static
make BASE build "$(dpkg --print-architecture)" python3.11 python3-pip
