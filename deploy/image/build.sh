#!/usr/bin/env bash
# Builds the image from Debian packages and Python wheels, without a container registry or a daemon. Requires root,
# Debian and the packages that .ci/tools installs. docs/how-to/build-image.md describes the build.
#
#   build.sh [--arch amd64|arm64] [--debug] [--tag NAME] [--output PATH] [--fresh]
#
#   --arch     platform of the image (default: the platform of this machine); no program of it runs during the build
#   --debug    build the variant with a busybox shell in /busybox
#   --tag      name of the image (default: docker.io/genplug/genplug:VERSION, or VERSION-debug with --debug)
#   --output   also write the image to PATH: a docker-archive if PATH ends in .tar, otherwise a directory in OCI layout
#   --fresh    build the base images again from the newest Debian packages and reuse no layer of an earlier build
#
# Prints the ID of the image, which is the digest of its configuration. GENPLUG_BUILD_ROOT is the directory in which
# images and layers are kept. SOURCE_DATE_EPOCH is the modification time of every file, by default 0, so that unchanged
# layers keep their digests.
set -euo pipefail

arch=$(dpkg --print-architecture) target=genplug tag='' output='' fresh=false
while [ $# -gt 0 ]; do
  case $1 in
    --arch) arch=$2 && shift 2 ;;
    --debug) target=debug && shift ;;
    --tag) tag=$2 && shift 2 ;;
    --output) output=$(realpath --canonicalize-missing "$2") && shift 2 ;;
    --fresh) fresh=true && shift ;;
    *) echo "build.sh: unexpected argument: $1" >&2 && sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
  esac
done
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' genplug/__init__.py)
suffix=$([ "$target" = genplug ] || echo "-$target")
tag=${tag:-docker.io/genplug/genplug:$version$suffix}
revision=${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
[ "$revision" = unknown ] || [ -n "${REVISION:-}" ] || git diff --quiet HEAD || revision+=-dirty
root=$(realpath --canonicalize-missing "${GENPLUG_BUILD_ROOT:-${GENPLUG_TOOLS:-$HOME/.cache/genplug/tools}/build}")
mkdir -p "$root"

# One build at a time: two concurrent builds would build the same base images.
exec 9>"$root/lock" && flock 9

# Use overlayfs if it can be mounted here. In a container it often cannot; vfs works everywhere but copies each layer.
mkdir -p "$root"/probe/{lower,upper,work,merged}
if mount -t overlay -o "lowerdir=$root/probe/lower,upperdir=$root/probe/upper,workdir=$root/probe/work" \
  overlay "$root/probe/merged" 2>/dev/null; then
  umount "$root/probe/merged" && driver=overlay
else
  driver=vfs
fi
cat >"$root/storage.conf" <<STORAGE
[storage]
driver = "$driver"
graphroot = "$root/$driver"
runroot = "$root/run-$driver"
[storage.options.overlay]
# A mount that outlives the build would prevent the removal of this directory.
skip_mount_home = "true"
STORAGE
export CONTAINERS_STORAGE_CONF=$root/storage.conf

if $fresh; then buildah rmi --all --force >/dev/null; fi
bases=$(deploy/image/base.sh "$arch")

# The build's pip uses the configuration of this machine's pip, passed as a secret because it may contain a password.
secrets=$(mktemp -d)
# buildah does not remove the container of a stage that another stage copies from.
trap 'rm -rf "$secrets"; buildah rm --all >/dev/null' EXIT
python3 - "$secrets" <<'PYTHON'
import ast, os, re, shutil, subprocess, sys
from pathlib import Path

directory = Path(sys.argv[1])
listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
settings = dict(re.findall(r"^[\w:.-]+\.([\w-]+)=(.*)$", listing.stdout.replace(":env:.", "env."), re.MULTILINE))
certificates = ast.literal_eval(settings.get("cert", "''")) or os.environ.get("SSL_CERT_FILE", "")
if certificates:
    shutil.copy(certificates, directory / "ca.pem")
kept = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
lines = [f"{name} = {str(ast.literal_eval(settings[name])).strip()}" for name in kept if name in settings]
(directory / "pip.conf").write_text("\n".join(["[global]", *(line.replace("\n", "\n  ") for line in lines), ""]))
PYTHON
given=(--secret "id=pip.conf,src=$secrets/pip.conf")
[ ! -e "$secrets/ca.pem" ] || given+=(--secret "id=ca.pem,src=$secrets/ca.pem")
while read -r base; do given+=(--build-arg "$base"); done <<<"$bases"

# Substituted here instead of passed as build arguments: buildah reuses a cached label even if its argument has changed.
# ARG CREATED is removed: its cached layer can be that of a build with another time, whose ID is part of the history.
epoch=${SOURCE_DATE_EPOCH:-0}
created=$(date --utc --date "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
sed "/^ARG CREATED=/d; s|\${CREATED}|$created|; s|\${VERSION}|$version|; s|\${REVISION}|$revision|" deploy/Containerfile >"$secrets/Containerfile"

buildah bud --quiet --isolation chroot --layers --pull=never --identity-label=false --timestamp "$epoch" \
  --arch "$arch" --file "$secrets/Containerfile" --target "$target" --tag "$tag" --ignorefile .dockerignore \
  "${given[@]}" --build-arg "BUILDPLATFORM=linux/$(dpkg --print-architecture)" --build-arg "TARGETARCH=$arch" . >/dev/null

if [ -n "$output" ]; then
  rm -rf "$output"
  mkdir -p "$(dirname "$output")"
  case $output in
    *.tar) buildah push --quiet "$tag" "docker-archive:$output:$tag" >&2 ;;
    *) buildah push --quiet --format oci "$tag" "oci:$output:${tag##*:}" >&2 ;;
  esac
fi
buildah inspect --type image --format 'sha256:{{.FromImageID}}' "$tag" && echo
